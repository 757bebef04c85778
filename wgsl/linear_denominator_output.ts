// Third pass of the denominator of linear attention for many rows: each query times the sum of the keys up to its row.
//
// A workgroup of 64 owns one query head of one tile, an invocation one row. Keys come 16 components (four words) at a time;
// for the sums down the rows, invocation (segment, word) first has four rows of one word:
//
//               word 0   1   2   3
//   rows 0-3  |  t0  | t1 | t2 | t3 |     sums within the four rows, plus those of the segments above,
//   rows 4-7  |  t4  | t5 | t6 | t7 |     plus what was before the tile

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { checkLinearSizes, fourArray, LINEAR_TILE, loadFour } from "./linear_decay.ts";
import { TILE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearDenominatorOutput}. */
export interface LinearDenominatorOutputSpec {
  /** Components of a head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Whether rows see only themselves and earlier ones; else the sums are those over all rows. */
  readonly causal: boolean;
  /** Whether offsets and strides of q and k are multiples of 4. */
  readonly aligned: boolean;
}

const WORDS = 4;

/**
 * Writes `out` [rows, heads]. Bindings `q`, when causal `k` (columns of rows), `tiles`, `tileSums` [tiles][kvHeads][keySize], `out`.
 *
 * @throws {RangeError} when the size does not fit.
 */
export function linearDenominatorOutput(spec: LinearDenominatorOutputSpec): Kernel {
  const { keySize, causal, aligned } = spec;
  checkLinearSizes({ keySize });
  const words = keySize / 4;
  const sums = `let word = start + local % ${WORDS}u;
    let segment = local / ${WORDS}u;
    let clamped = min(word, ${words - 1}u);
    let column = params.kOffset + head * ${keySize}u + clamped * 4u;
    let first = tile.first + segment * 4u;
    let z0 = kFour(min(first, last) * params.kStride + column);
    ${
    unroll(3, (i) => `let z${i + 1} = z${i} + kFour(min(first + ${i + 1}u, last) * params.kStride + column);`)
  }
    totals[local] = z3;
    workgroupBarrier();
    var above = tileSums[sumsFirst + clamped];
    for (var s = local % ${WORDS}u; s < segment * ${WORDS}u; s += ${WORDS}u) { above += totals[s]; }
    let line = local % ${WORDS}u * ${LINEAR_TILE}u + segment * 4u;
    ${unroll(4, (i) => `prefix[line + ${i}u] = above + z${i};`)}
    workgroupBarrier();`;
  return defineKernel({
    name: `linearDenominatorOutput ${keySize}${causal ? "" : " whole"}${aligned ? "" : " unaligned"}`,
    parameters: {
      tiles: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
    },
    bindings: [
      read("q", fourArray(aligned)),
      ...(causal ? [read("k", fourArray(aligned))] : []),
      read("tiles", "array<Tile>"),
      read("tileSums", "array<vec4<f32>>"),
      write("out", "array<f32>"),
    ],
    grid: ({ tiles, heads }) => [tiles, heads, 1],
    body: `
${TILE_STRUCT}
${(causal ? ["q", "k"] : ["q"]).map((name) => loadFour(name, aligned)).join("")}
${
      causal
        ? `var<workgroup> totals: array<vec4<f32>, ${LINEAR_TILE}>;
var<workgroup> prefix: array<vec4<f32>, ${WORDS * LINEAR_TILE}>;`
        : ""
    }
@compute @workgroup_size(${LINEAR_TILE})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let tile = tiles[group.x];
  if (tile.count == 0u) { return; }
  let last = tile.first + tile.count - 1u;
  let head = group.y / (params.heads / params.kvHeads);
  let row = min(tile.first + local, last);
  let sumsFirst = (group.x * params.kvHeads + head) * ${words}u;
  let query = row * params.qStride + params.qOffset + group.y * ${keySize}u;
  var sum = 0.0;
  for (var start = 0u; start < ${words}u; start += ${WORDS}u) {
    ${causal ? sums : ""}
    ${
      unroll(WORDS, (w) =>
        `${
          words % WORDS === 0 ? "" : `if (start + ${w}u < ${words}u) `
        }{ sum += dot(qFour(query + (start + ${w}u) * 4u), ${
          causal ? `prefix[${w * LINEAR_TILE}u + local]` : `tileSums[sumsFirst + start + ${w}u]`
        }); }`)
    }
    ${causal ? "workgroupBarrier();" : ""}
  }
  if (local < tile.count) { out[row * params.heads + group.y] = sum; }
}
`,
  });
}
