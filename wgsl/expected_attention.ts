// How much attention keys may expect from queries of a known mean and covariance, and scores by it (Expected Attention,
// arXiv:2510.00636).
//
//   expectedLogits   log of the mean of exp(q k / sqrt(D)) over normally distributed queries q, by query head
//   expectedScores   softmax over the keys, mean over the heads of a group, times the length of the value
//
// expectedLogits: a workgroup has some keys of one query head in workgroup memory; several invocations share a key, each
// with every so many-th row of the covariance, whose words all read at once.

import { defineKernel, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { loadScalar, loadVector, scalarArray, vectorArray } from "./load.ts";
import { EXTENT_STRUCT, ROW_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode expectedLogits}. */
export interface ExpectedLogitsSpec {
  /** Storage type of the keys. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Query heads of a KV head. */
  readonly groupSize: number;
}

/** Compiled-in choices of {@linkcode expectedScores}. */
export interface ExpectedScoresSpec extends ExpectedLogitsSpec {
  /** Whether values count by their length. */
  readonly valueNorms: boolean;
}

const THREADS = 64;

/** Keys of a workgroup: as many as take 16 KiB at the most. */
function keysOf(headSize: number): number {
  return Math.min(THREADS, 2 ** Math.floor(Math.log2(4096 / headSize)));
}

function checkHead(headSize: number): void {
  if (!(headSize >= 4 && headSize <= 256 && headSize % 4 === 0)) {
    throw new RangeError(`headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`);
  }
}

/**
 * `logits[head * stride + first + j]` for the query heads of the KV heads [firstHead, firstHead + arenaHeads):
 * `mean . k / sqrt(headSize) + k . (covariance k) / (2 headSize)` with the key of row `first + j`, in slot `start + j`.
 * Means and covariances are those of `turnStatistics`. `columns` is at least the largest number of rows that need scores.
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function expectedLogits({ dtype, headSize, groupSize }: ExpectedLogitsSpec): Kernel {
  checkHead(headSize);
  const keys = keysOf(headSize);
  const parts = THREADS / keys;
  // Neighbours read neighbouring banks.
  const span = headSize + 1;
  return defineKernel({
    name: `expectedLogits ${dtype} head ${headSize} group ${groupSize}`,
    f16: dtype === "f16",
    parameters: {
      columns: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      stride: "u32",
    },
    bindings: [
      read("keys", scalarArray(dtype)),
      read("extents", "array<Extent>"),
      read("selections", "array<Selection>"),
      read("means", "array<f32>"),
      read("covariances", "array<f32>"),
      write("logits", "array<f32>"),
    ],
    grid: (
      { columns, arenaHeads, sequences },
    ) => [Math.ceil(columns / keys), arenaHeads * groupSize, sequences],
    body: `
${EXTENT_STRUCT}
${SELECTION_STRUCT}
var<workgroup> tile: array<f32, ${keys * span}>;
var<workgroup> sums: array<f32, ${THREADS}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.z];
  let firstKey = group.x * ${keys}u;
  if (firstKey >= selection.count) { return; }
  let head = params.firstHead * ${groupSize}u + group.y;
  let kvHead = head / ${groupSize}u;
  let extent = extents[(params.layer * params.sequences + group.z) * params.kvHeads + kvHead];
  let last = selection.count - 1u;
  for (var i = local; i < ${keys * headSize}u; i += ${THREADS}u) {
    let slot = extent.base + extent.start + min(firstKey + i / ${headSize}u, last);
    tile[i / ${headSize}u * ${span}u + i % ${headSize}u] = ${
      loadScalar(dtype, "keys", `slot * ${headSize}u + i % ${headSize}u`)
    };
  }
  workgroupBarrier();
  let key = local % ${keys}u * ${span}u;
  let pair = group.z * params.kvHeads * ${groupSize}u + head;
  var sum = 0.0;
  for (var i = local / ${keys}u; i < ${headSize}u; i += ${parts}u) {
    var product = 0.0;
    let row = (pair * ${headSize}u + i) * ${headSize}u;
    for (var j = 0u; j < ${headSize}u; j++) { product = fma(covariances[row + j], tile[key + j], product); }
    sum += tile[key + i] * (means[pair * ${headSize}u + i] * ${1 / Math.sqrt(headSize)} + product * ${
      0.5 / headSize
    });
  }
  sums[local] = sum;
  workgroupBarrier();
  if (local >= ${keys}u || firstKey + local > last) { return; }
  for (var part = 1u; part < ${parts}u; part++) { sum += sums[part * ${keys}u + local]; }
  logits[head * params.stride + selection.first + firstKey + local] = sum;
}
`,
  });
}

/**
 * `scores[head * stride + first + j]` for the KV heads [firstHead, firstHead + arenaHeads):
 * `(mean over the group's heads of softmax over j of logits + epsilon) * ||v[j]||`. The softmax is over the first `columns`
 * rows of a sequence whose positions are not below `sinks`; those of sinks are 0. One workgroup a (KV head, sequence).
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function expectedScores({ dtype, headSize, groupSize, valueNorms }: ExpectedScoresSpec): Kernel {
  checkHead(headSize);
  const words = headSize / 4;
  const threads = 256;
  return defineKernel({
    name: `expectedScores ${dtype} head ${headSize} group ${groupSize}${valueNorms ? " value norms" : ""}`,
    f16: dtype === "f16",
    parameters: {
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      stride: "u32",
      sinks: "u32",
      epsilon: "f32",
    },
    bindings: [
      read("logits", "array<f32>"),
      ...(valueNorms ? [read("values", vectorArray(dtype)), read("extents", "array<Extent>")] : []),
      read("rowTable", "array<Row>"),
      read("selections", "array<Selection>"),
      write("scores", "array<f32>"),
    ],
    grid: ({ arenaHeads, sequences }) => [arenaHeads, sequences, 1],
    body: `
${EXTENT_STRUCT}
${ROW_STRUCT}
${SELECTION_STRUCT}
var<workgroup> partial: array<f32, ${threads}>;
// Of each head of the group: the largest logit, and the sum of exp.
var<workgroup> terms: array<vec2<f32>, ${groupSize}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.y];
  let kvHead = params.firstHead + group.x;
  let end = selection.first + selection.count;
  for (var g = 0u; g < ${groupSize}u; g++) {
    let base = (kvHead * ${groupSize}u + g) * params.stride;
    var most = -3.4e38;
    for (var row = selection.first + local; row < end; row += ${threads}u) {
      if (rowTable[row].position >= params.sinks) { most = max(most, logits[base + row]); }
    }
    partial[local] = most;
    workgroupBarrier();
    if (local == 0u) {
      for (var i = 1u; i < ${threads}u; i++) { most = max(most, partial[i]); }
      terms[g].x = most;
    }
    workgroupBarrier();
    most = terms[g].x;
    var sum = 0.0;
    for (var row = selection.first + local; row < end; row += ${threads}u) {
      if (rowTable[row].position >= params.sinks) { sum += exp(logits[base + row] - most); }
    }
    partial[local] = sum;
    workgroupBarrier();
    if (local == 0u) {
      for (var i = 1u; i < ${threads}u; i++) { sum += partial[i]; }
      terms[g].y = sum;
    }
    workgroupBarrier();
  }
  ${
      valueNorms
        ? "let extent = extents[(params.layer * params.sequences + group.y) * params.kvHeads + kvHead];"
        : ""
    }
  for (var row = selection.first + local; row < end; row += ${threads}u) {
    var score = 0.0;
    if (rowTable[row].position >= params.sinks) {
      for (var g = 0u; g < ${groupSize}u; g++) {
        let logit = logits[(kvHead * ${groupSize}u + g) * params.stride + row];
        score += exp(logit - terms[g].x) / terms[g].y;
      }
      score = score / ${groupSize}.0 + params.epsilon;
      ${
      valueNorms
        ? `var square = 0.0;
      for (var w = 0u; w < ${words}u; w++) {
        let value = ${
          loadVector(dtype, "values", `(extent.base + extent.start + row - selection.first) * ${words}u + w`)
        };
        square += dot(value, value);
      }
      score *= sqrt(square);`
        : ""
    }
    }
    scores[kvHead * params.stride + row] = score;
  }
}
`,
  });
}
