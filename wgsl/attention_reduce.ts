// Attention of few rows over a long cache, second of two kernels: combines the splits of attentionDecode.
//
//   splits ->     0    1    2  ...
//   column word 0 | t0 |    |        a workgroup owns one row and one query head; a thread has one word (4 columns) of
//   column word 1 | t1 |    |        the output and every `lanes`-th split; the lanes are summed at the end, in order
//
// How many splits count is worked out from the extent's length, never from the grid that wrote them; one without a
// visible slot adds exact zeros. So a result does not depend on how long the other rows' caches are.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { EXTENT_STRUCT, ROW_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode attentionReduce}. */
export interface AttentionReduceSpec {
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Whether the logarithm of the sum of exp(score) is written as well. Default: false. */
  readonly logSumExp?: boolean;
}

const MAX_THREADS = 256;
const MAX_LANES = 16;

/**
 * `out[row * outStride + head * headSize + d]`: the softmax-weighted mean of values that the splits of
 * `attentionDecode` stand for; 0 for a row that sees no slot. `split` is the slots of a split and `splits` the splits
 * of the grid that wrote `partials` and `statistics`.
 *
 * With `logSumExp` it also writes `logSumExps[row * heads + head]`, the natural logarithm of the sum of exp(score) over
 * the slots that the row sees; -3.4e38 when it sees none.
 */
export function attentionReduce(spec: AttentionReduceSpec): Kernel {
  const { headSize, logSumExp = false } = spec;
  const words = headSize / 4;
  const lanes = Math.min(MAX_LANES, Math.floor(MAX_THREADS / words));
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
const MASKED = -3.4e38;
var<workgroup> maxima: array<f32, ${lanes}>;
var<workgroup> totals: array<f32, ${lanes}>;
var<workgroup> sums: array<vec4<f32>, ${lanes * words}>;

@compute @workgroup_size(${lanes * words})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let head = group.x;
  let row = rowTable[group.y];
  let kvHead = head / (params.heads / params.kvHeads);
  let length = extents[(params.layer * params.sequences + row.sequence) * params.kvHeads + kvHead].length;
  let count = min((length + params.split - 1u) / params.split, params.splits);
  let first = (group.y * params.heads + head) * params.splits;
  let column = local % ${words}u;
  let lane = local / ${words}u;

  var maximum = MASKED;
  for (var i = lane; i < count; i += ${lanes}u) { maximum = max(maximum, statistics[first + i].x); }
  if (column == 0u) { maxima[lane] = maximum; }
  workgroupBarrier();
  maximum = maxima[0];
  ${unroll(lanes - 1, (i) => `maximum = max(maximum, maxima[${i + 1}]);`)}

  var total = 0.0;
  var sum = vec4<f32>(0.0);
  for (var i = lane; i < count; i += ${lanes}u) {
    let part = statistics[first + i];
    let weight = exp(part.x - maximum);
    total = fma(weight, part.y, total);
    sum = fma(vec4<f32>(weight), partials[(first + i) * ${words}u + column], sum);
  }
  if (column == 0u) { totals[lane] = total; }
  sums[local] = sum;
  workgroupBarrier();
  if (lane == 0u) {
    ${
    unroll(lanes - 1, (i) =>
      `total += totals[${i + 1}];
    sum += sums[column + ${(i + 1) * words}u];`)
  }
    let word = (group.y * params.outStride) / 4u + head * ${words}u + column;
    out[word] = select(sum / vec4<f32>(total), vec4<f32>(0.0), total == 0.0);
    ${
    logSumExp
      ? `if (column == 0u) {
      logSumExps[group.y * params.heads + head] = select(maximum + log(total), MASKED, total == 0.0);
    }`
      : ""
  }
  }
}
`;
  return defineKernel({
    name: `attentionReduce head ${headSize}${logSumExp ? " logSumExp" : ""}`,
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      splits: "u32",
      split: "u32",
      outStride: "u32",
    },
    bindings: [
      read("partials", "array<vec4<f32>>"),
      read("statistics", "array<vec2<f32>>"),
      read("rowTable", "array<Row>"),
      read("extents", "array<Extent>"),
      write("out", "array<vec4<f32>>"),
      ...(logSumExp ? [write("logSumExps", "array<f32>")] : []),
    ],
    grid: ({ rows, heads }) => [heads, rows, 1],
    body,
  });
}
