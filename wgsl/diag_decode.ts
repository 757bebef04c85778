// Block-diagonal attention of one row a sequence: over what the state keeps of the row's block, and the row itself.
//
// A workgroup owns one row and one query head. First its threads have the slots of the block by turns and score them;
// then a thread has one word of the output and every s-th slot:
//
//   slots:    t0 t1 t2 ... t127 t0 ... | own row       output:  word 0     word 1  ...
//                                              slots 0, s, 2s ..    t0         t1
//                                              slots 1, s + 1 ..    tn         tn+1 ...   added up in the end

import { checkDiag, type DiagScore } from "./diag_attention.ts";
import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { workgroupReduce } from "./reduce.ts";
import { SCORE_BOUNDS } from "./score_bounds.ts";
import { ROW_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode diagDecode}. */
export interface DiagDecodeSpec {
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Positions of a block. */
  readonly block: number;
  /** What becomes of a score. */
  readonly score: DiagScore;
  /** Whether a row of the token `padToken` is no key. */
  readonly padded: boolean;
}

const THREADS = 128;

/**
 * As {@linkcode diagAttention} with `causal`, for `rows` rows of different sequences; `state` does not have the rows
 * themselves yet.
 *
 * @throws {RangeError} when the head size or the block does not fit.
 */
export function diagDecode(spec: DiagDecodeSpec): Kernel {
  const { headSize, block, score, padded } = spec;
  checkDiag(spec);
  const softmax = score === "softmax";
  const words = headSize / 4;
  const splits = Math.floor(THREADS / words);
  const body = `
${ROW_STRUCT}
${POSITION_TAG}
${SCORE_BOUNDS}
var<workgroup> weights: array<f32, ${block}>;
var<workgroup> outputs: array<vec4<f32>, ${THREADS}>;
${
    softmax
      ? workgroupReduce({ name: "largest", size: THREADS, operation: "max", subgroups: false }) +
        workgroupReduce({ name: "total", size: THREADS, operation: "add", subgroups: false })
      : ""
  }
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = group.x;
  let head = group.y;
  let kvHead = head / (params.heads / params.kvHeads);
  let sequence = rowTable[row].sequence;
  let position = rowTable[row].position;
  let own = position % ${block}u;
  let statePart = params.kvHeads * ${block * words}u;
  let stateBase = sequence * (2u * statePart + ${block}u);
  let stateKeys = stateBase + kvHead * ${block * words}u;
  let query = (row * params.qStride + params.qOffset) / 4u + head * ${words}u;
  let key = (row * params.kStride + params.kOffset) / 4u + kvHead * ${words}u;
  let value = (row * params.vStride + params.vOffset) / 4u + kvHead * ${words}u;
  ${softmax ? "var greatest = MASKED;" : ""}
  for (var slot = local; slot <= own; slot += ${THREADS}u) {
    var seen = ${padded ? "rowTable[row].token != params.padToken" : "true"};
    var s = 0.0;
    if (slot == own) {
      for (var w = 0u; w < ${words}u; w++) { s += dot(q[query + w], k[key + w]); }
    } else {
      let tag = state[stateBase + 2u * statePart + slot];
      seen = hasTag(tag) && taggedPosition(tag) == position - own + slot;
      let place = stateKeys + slot * ${words}u;
      for (var w = 0u; w < ${words}u; w++) { s += dot(q[query + w], state[place + w]); }
    }
    ${
    softmax
      ? `let weight = select(MASKED, clamp(params.scale * s, -SCORE_LIMIT, SCORE_LIMIT), seen);
    greatest = max(greatest, weight);`
      : "let weight = select(0.0, max(params.scale * s, 0.0), seen);"
  }
    weights[slot] = weight;
  }
  ${
    softmax
      ? `let maximum = largest(greatest, local);
  var part = 0.0;
  for (var slot = local; slot <= own; slot += ${THREADS}u) {
    let weight = select(0.0, exp(weights[slot] - maximum), weights[slot] > MASKED);
    weights[slot] = weight;
    part += weight;
  }
  let sum = total(part, local);
  let inverse = select(1.0 / sum, 0.0, sum == 0.0);`
      : "workgroupBarrier();"
  }
  let word = local % ${words}u;
  var output = vec4<f32>(0.0);
  for (var slot = local / ${words}u; slot <= own && local < ${splits * words}u; slot += ${splits}u) {
    let weight = weights[slot];
    if (weight == 0.0) { continue; }
    if (slot == own) {
      output = fma(vec4<f32>(weight), v[value + word], output);
    } else {
      output = fma(vec4<f32>(weight), state[stateKeys + statePart + slot * ${words}u + word], output);
    }
  }
  outputs[local] = output;
  workgroupBarrier();
  if (local >= ${words}u) { return; }
  ${unroll(splits - 1, (i) => `output += outputs[local + ${(i + 1) * words}u];`)}
  out[row * params.outStride / 4u + head * ${words}u + local] = output${softmax ? " * inverse" : ""};
}
`;
  return defineKernel({
    name: `diagDecode ${score} head ${headSize} block ${block}${padded ? " padded" : ""}`,
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      outStride: "u32",
      padToken: "u32",
      scale: "f32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("k", "array<vec4<f32>>"),
      read("v", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      read("state", "array<vec4<f32>>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ rows, heads }) => [rows, heads, 1],
    body,
  });
}
