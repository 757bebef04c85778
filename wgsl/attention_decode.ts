// Attention of few rows over a long cache, first of two kernels: every split of consecutive slots gives an unnormalised
// output with its maximum and its sum, which attentionReduce combines (flash-decoding, Dao et al. 2023; the online
// softmax is that of FlashAttention, arXiv:2205.14135).
//
// A workgroup owns one row, one KV head with all its query heads, and one split, so K and V are read once a group of
// heads. It is small, and issues all its loads of K and V before it needs the first of them:
//
//   scores     slots ->  | quad 0        | quad 1        | ...      a thread has 4 consecutive slots (a quad) and one
//              lane 0    |  t0           |  t(lanes)     |          lane: chunks lane, lane + lanes, ... of the head
//              lane 1    |  t1           |  ...          |          size; a score is the sum over its quad's lanes
//   softmax    a thread has one (query head, quad)
//   output     columns -> | word 0 | word 1 | ...                   a thread has one word (4 columns) of V and a run
//              slots 0..  |  t0    |  t1    |                       of consecutive slots; the runs are summed at the
//              slots n..  |  t(words) ...                           end, in order
//
// All three go through workgroup memory, a batch of query heads at a time. Sums are taken in an order that is the same
// for every row and every split: neither the number of rows nor that of splits changes a result. Slots over the length
// repeat the last one (memory behind it may hold anything) and have weight 0, as has a slot of a later position.

import { defineKernel, type Kernel, read, type StorageType, unroll, write } from "./kernel.ts";
import { EXTENT_STRUCT, ROW_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode attentionDecode}. */
export interface AttentionDecodeSpec {
  /** Storage type of the cache. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Query heads that share a KV head, 1 to 16. */
  readonly groupSize: number;
  /** Slots of a split: 32, 64 or 128. Changes the order of sums. */
  readonly split: number;
  /** Whether the scores are written as well. Default: false. */
  readonly logits?: boolean;
}

/** Tile sizes of a spec. */
interface Decisions {
  /** Whether keys are loaded 8 at a time. */
  readonly packed: boolean;
  /** Numbers in a chunk of a key, and chunks in a key. */
  readonly chunk: number;
  readonly chunks: number;
  /** Threads that share the keys of a quad, and chunks each of them has of a key. */
  readonly lanes: number;
  readonly own: number;
  readonly quads: number;
  readonly threads: number;
  /** Words of a value, runs of slots that share a column, and slots of a run. */
  readonly words: number;
  readonly runs: number;
  readonly run: number;
  /** Query heads that go through workgroup memory together. */
  readonly batch: number;
}

const MAX_THREADS = 256;
/** Most bytes of workgroup memory, reached by large groups of large heads only. */
const WORKGROUP_BYTES = 32768;
const SCRATCH_BYTES = 16384;
/** Most vector operations in the text of a batch: what a driver compiles in good time. */
const MAX_UNROLLED = 512;

function largestDivisor(of: number, most: number): number {
  let divisor = Math.min(of, most);
  while (of % divisor !== 0) divisor--;
  return divisor;
}

function decide({ dtype, headSize, groupSize, split }: AttentionDecodeSpec): Decisions {
  const packed = dtype === "f16" && headSize % 8 === 0;
  const chunk = packed ? 8 : 4;
  const chunks = headSize / chunk;
  const quads = split / 4;
  const mostLanes = Math.min(chunks >= 32 ? 16 : 8, MAX_THREADS / quads);
  // A divisor leaves no lane idle; a head size without a good one (a large prime) gets idle lanes at the end.
  const divisor = largestDivisor(chunks, mostLanes);
  const lanes = divisor >= Math.min(4, chunks) ? divisor : mostLanes;
  const threads = quads * lanes;
  const words = headSize / 4;
  let runs = 1;
  while (runs * 2 * words <= threads && runs * 2 <= quads) runs *= 2;
  const own = Math.ceil(chunks / lanes);
  const run = split / runs;
  const fits = (batch: number): boolean =>
    groupSize % batch === 0 &&
    16 * batch * threads <= SCRATCH_BYTES &&
    16 * (groupSize * words + batch * threads + (batch + 1) * quads) + 4 * batch * quads <= WORKGROUP_BYTES &&
    batch * (own * chunk + run) <= MAX_UNROLLED;
  let batch = Math.min(groupSize, lanes);
  while (batch > 1 && !fits(batch)) batch--;
  return {
    packed,
    chunk,
    chunks,
    lanes,
    own,
    quads,
    threads,
    words,
    runs,
    run,
    batch,
  };
}

function check({ headSize, groupSize, split }: AttentionDecodeSpec): void {
  if (!(headSize >= 4 && headSize <= 256 && headSize % 4 === 0)) {
    throw new RangeError(`headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`);
  }
  if (!(Number.isInteger(groupSize) && groupSize >= 1 && groupSize <= 16)) {
    throw new RangeError(`groupSize must be a whole number from 1 to 16: current value is ${groupSize}`);
  }
  if (![32, 64, 128].includes(split)) {
    throw new RangeError(`split must be 32, 64 or 128: current value is ${split}`);
  }
}

/**
 * Softmax attention of each row over the slots of its extent whose position is not later than the row's, by splits.
 *
 * With `n = (row * heads + head) * splits + i` for split `i`, it writes `partials[n * headSize ..]`, the sum over the
 * split's visible slots of `exp(score - maximum) * value`, and `statistics[n] = (maximum, sum of exp(score - maximum))`,
 * where `score = scale * dot(q, k)`. A split without a visible slot has sum 0; a split that begins at or over the
 * extent's length writes nothing. `splits` is the grid's: at least the longest length divided by `split`.
 *
 * With `logits` it also writes `logits[(row * heads + head) * logitStride + slot] = score` for each slot of the extent,
 * -3.4e38 where it may not be seen.
 *
 * The arena holds the KV heads [firstHead, firstHead + arenaHeads).
 *
 * @throws {RangeError} when the head size, the group size or the split does not fit.
 */
export function attentionDecode(spec: AttentionDecodeSpec): Kernel {
  check(spec);
  const { dtype, headSize, groupSize, split, logits = false } = spec;
  const { packed, chunk, chunks, lanes, own, quads, threads, words, runs, run, batch } = decide(spec);
  const batches = groupSize / batch;
  const parts = chunk / 4;
  const guarded = own * lanes !== chunks;

  const chunkIndex = (j: number): string =>
    guarded ? `min(lane + ${j * lanes}u, ${chunks - 1}u)` : `lane + ${j * lanes}u`;
  const loadKey = (i: number): string =>
    unroll(
      own,
      (j) =>
        `let raw${i}_${j} = keys[(extent.base + min(firstSlot + ${i}u, last)) * ${chunks}u + ${
          chunkIndex(j)
        }];`,
    );
  const widenKey = (i: number): string =>
    unroll(own, (j) => {
      const raw = `raw${i}_${j}`;
      const key = `key${i}_${j}`;
      return packed
        ? `let ${key}_0 = vec4<f32>(unpack2x16float(${raw}.x), unpack2x16float(${raw}.y));
  let ${key}_1 = vec4<f32>(unpack2x16float(${raw}.z), unpack2x16float(${raw}.w));`
        : `let ${key}_0 = vec4<f32>(${raw});`;
    });
  const scoreOf = (i: number): string =>
    Array.from(
      { length: own },
      (_, j) => Array.from({ length: parts }, (_, p) => `dot(query${j}_${p}, key${i}_${j}_${p})`),
    ).flat().join(" + ");
  const loadQuery = (j: number): string =>
    unroll(parts, (p) => {
      const word = `queries[(first + b) * ${words}u + (${chunkIndex(j)}) * ${parts}u + ${p}u]`;
      const value = guarded ? `select(vec4<f32>(0.0), ${word}, lane + ${j * lanes}u < ${chunks}u)` : word;
      return `let query${j}_${p} = ${value};`;
    });

  const guardItem = (statement: string): string =>
    batch * quads === threads ? statement : `if (local < ${batch * quads}u) { ${statement} }`;

  const storeLogits = "\n  " + guardItem(`
    let slot = splitStart + itemQuad * 4u;
    let at = (group.z * params.heads + kvHead * ${groupSize}u + first + itemHead) * params.logitStride + slot;
    ${unroll(4, (i) => `if (slot + ${i}u <= last) { logits[at + ${i}u] = score[${i}]; }`)}
  `);

  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
const MASKED = -3.4e38;
var<workgroup> queries: array<vec4<f32>, ${groupSize * words}>;
// Per head of the batch: the lanes' parts of scores, later the runs' parts of the output.
var<workgroup> scratch: array<vec4<f32>, ${batch * threads}>;
var<workgroup> maxima: array<f32, ${batch * quads}>;
var<workgroup> weights: array<vec4<f32>, ${batch * quads}>;
// Not 0 where the slot may be seen.
var<workgroup> visible: array<vec4<u32>, ${quads}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = rowTable[group.z];
  let kvHead = params.firstHead + group.y;
  let extent = extents[(params.layer * params.sequences + row.sequence) * params.kvHeads + kvHead];
  let splitStart = group.x * ${split}u;
  if (splitStart >= extent.length) { return; }
  let last = extent.length - 1u;

  let quad = local / ${lanes}u;
  let lane = local % ${lanes}u;
  let firstSlot = splitStart + quad * 4u;
  ${unroll(4, loadKey)}
  let column = local % ${words}u;
  let runIndex = min(local / ${words}u, ${runs - 1}u);
  let runStart = splitStart + runIndex * ${run}u;
  ${
    unroll(run, (i) =>
      `let value${i} = values[(extent.base + min(runStart + ${i}u, last)) * ${words}u + column];`)
  }

  let firstQuery = (group.z * params.qStride + params.qOffset) / 4u + kvHead * ${groupSize * words}u;
  for (var i = local; i < ${
    groupSize * words
  }u; i += ${threads}u) { queries[i] = params.scale * q[firstQuery + i]; }
  for (var i = local; i < ${quads}u; i += ${threads}u) {
    let slot = vec4<u32>(splitStart + i * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let index = vec4<u32>(extent.positions) + min(slot, vec4<u32>(last));
    let position = vec4<u32>(
      slotPositions[index.x], slotPositions[index.y], slotPositions[index.z], slotPositions[index.w],
    );
    visible[i] = select(vec4<u32>(0u), vec4<u32>(1u), (slot <= vec4<u32>(last)) & (position <= vec4<u32>(row.position)));
  }
  ${unroll(4, widenKey)}
  workgroupBarrier();

  let firstOut = (group.z * params.heads + kvHead * ${groupSize}u) * params.splits + group.x;
  // The (head, quad) of this thread in the softmax.
  let item = min(local, ${batch * quads - 1}u);
  let itemHead = item / ${quads}u;
  let itemQuad = item % ${quads}u;
  let seen = visible[itemQuad] != vec4<u32>(0u);
  ${batches > 1 ? `for (var first = 0u; first < ${groupSize}u; first += ${batch}u) {` : "let first = 0u;"}
  ${
    unroll(batch, (b) =>
      `{
    let b = ${b}u;
    ${unroll(own, loadQuery)}
    scratch[${b * threads}u + local] = vec4<f32>(
      ${Array.from({ length: 4 }, (_, i) => scoreOf(i)).join(",\n      ")},
    );
  }`)
  }
  workgroupBarrier();
  let part = itemHead * ${threads}u + itemQuad * ${lanes}u;
  var score = scratch[part];
  ${unroll(lanes - 1, (l) => `score += scratch[part + ${l + 1}u];`)}
  score = select(vec4<f32>(MASKED), score, seen);
  ${guardItem("maxima[item] = max(max(score.x, score.y), max(score.z, score.w));")}${
    logits ? storeLogits : ""
  }
  workgroupBarrier();
  var maximum = maxima[itemHead * ${quads}u];
  ${unroll(quads - 1, (i) => `maximum = max(maximum, maxima[itemHead * ${quads}u + ${i + 1}u]);`)}
  ${guardItem("weights[item] = select(vec4<f32>(0.0), exp(score - vec4<f32>(maximum)), seen);")}
  workgroupBarrier();
  if (local < ${batch * quads}u && itemQuad == 0u) {
    var sum = weights[item];
    ${unroll(quads - 1, (i) => `sum += weights[item + ${i + 1}u];`)}
    statistics[firstOut + (first + itemHead) * params.splits] = vec2<f32>(maximum, (sum.x + sum.y) + (sum.z + sum.w));
  }
  ${runs * words === threads ? "{" : `if (local < ${runs * words}u) {`}
  ${
    unroll(batch, (b) =>
      `{
    var sum = vec4<f32>(0.0);
    ${
        unroll(run / 4, (i) =>
          `let weight${i} = weights[${b * quads}u + runIndex * ${run / 4}u + ${i}u];
    ${unroll(4, (k) => `sum = fma(vec4<f32>(weight${i}.${"xyzw"[k]}), vec4<f32>(value${4 * i + k}), sum);`)}`)
      }
    scratch[${b * runs * words}u + local] = sum;
  }`)
  }
  }
  workgroupBarrier();
  for (var i = local; i < ${batch * words}u; i += ${threads}u) {
    let head = i / ${words}u;
    let at = head * ${runs * words}u + i % ${words}u;
    var sum = scratch[at];
    ${unroll(runs - 1, (r) => `sum += scratch[at + ${(r + 1) * words}u];`)}
    partials[(firstOut + (first + head) * params.splits) * ${words}u + i % ${words}u] = sum;
  }
  ${batches > 1 ? "workgroupBarrier();\n  }" : ""}
}
`;
  return defineKernel({
    name: `attentionDecode ${dtype} head ${headSize} group ${groupSize} split ${split}${
      logits ? " logits" : ""
    }`,
    f16: dtype === "f16",
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      scale: "f32",
      splits: "u32",
      ...(logits ? { logitStride: "u32" as const } : {}),
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("keys", packed ? "array<vec4<u32>>" : `array<vec4<${dtype}>>`),
      read("values", `array<vec4<${dtype}>>`),
      read("slotPositions", "array<u32>"),
      read("rowTable", "array<Row>"),
      read("extents", "array<Extent>"),
      write("partials", "array<vec4<f32>>"),
      write("statistics", "array<vec2<f32>>"),
      ...(logits ? [write("logits", "array<f32>")] : []),
    ],
    grid: ({ rows, arenaHeads, splits }) => [splits, arenaHeads, rows],
    body,
  });
}
