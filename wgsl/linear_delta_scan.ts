// The part of the chunked delta rule that goes from chunk to chunk: the updates R = U - W S of a chunk, what its queries read
// of the state before it, and the state after it.
//
//   O = diag(exp(G)) Q S     S' = exp(G_C) S + Kᵀ diag(exp(G_C - G)) R
//
// A workgroup owns 16 columns (4 words; 8 columns where keys are over 128 long) of the state of one sequence and KV head,
// in workgroup memory, and walks over the sequence's chunks:
//
//   rows of a chunk    R and O: one word of one row an invocation        word 0   word 1   word 2   word 3
//                                                                  row 0 | t0       t1       t2       t3
//                                                                  row 1 | t4       t5 ...
//   rows of S          S': one word of four rows an invocation
//                                                                0 .. 3  | t0       t1       t2       t3
//                                                                4 .. 7  | t4       t5 ...

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { DELTA_CHUNK } from "./linear_delta_chunk.ts";
import { checkStateHeadSizes, scanWords, type StateHeadSizes, unrollFactor } from "./state_heads.ts";
import { STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearDeltaScan}. */
export interface LinearDeltaScanSpec extends StateHeadSizes {
  /** Whether the state decays. */
  readonly decay: boolean;
}

const THREADS = 128;
const COMPONENTS = ["x", "y", "z", "w"];

/**
 * Bindings `q`, `k` [rows, ..] f32 with strides and offsets that are multiples of 4; `solved` and (with `decay`) `gates` of
 * linearDeltaSolve, where U becomes R; `spans`, `states`, `state` [sequences][kvHeads][keySize][valueSize] f32; `out`
 * [rows, heads * valueSize]: O. States of sequences that are done stay as they are.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearDeltaScan(spec: LinearDeltaScanSpec): Kernel {
  checkStateHeadSizes(spec);
  const { keySize, valueSize, decay } = spec;
  const own = scanWords(keySize);
  const keyWords = keySize / 4;
  const valueWords = valueSize / 4;
  const solvedWords = keyWords + valueWords;
  const steps = unrollFactor(keyWords);
  /** Adds the product of a row of `array` (from word `start` on) with the workgroup's columns of the state. */
  const timesState = (sum: string, array: string, start: string): string =>
    `for (var key = 0u; key < ${keyWords}u; key += ${steps}u) {
        let at = key * ${4 * own}u + word;
        ${
      unroll(steps, (s) =>
        `let a${s} = ${array}[${start} + key + ${s}u];
        ${
          unroll(4, (c) =>
            `${sum} = fma(vec4<f32>(a${s}.${COMPONENTS[c]}), columns[at + ${(4 * s + c) * own}u], ${sum});`)
        }`)
    }
      }`;
  const body = `
${STATE_STRUCT}
var<workgroup> columns: array<vec4<f32>, ${keySize * own}>;
var<workgroup> updates: array<vec4<f32>, ${DELTA_CHUNK * own}>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.x;
  let kvHead = group.y;
  let span = spans[sequence];
  if (span.y == 0u) { return; }
  let groupSize = params.heads / params.kvHeads;
  let word = local % ${own}u;
  let inside = group.z * ${own}u + word < ${valueWords}u;
  // Columns over the end repeat the last ones and are not stored.
  let column = min(group.z * ${own}u + word, ${valueWords - 1}u);
  let stateStart = (sequence * params.kvHeads + kvHead) * ${keySize * valueWords}u + column;
  for (var unit = local; unit < ${keySize * own}u; unit += ${THREADS}u) {
    columns[unit] = state[stateStart + unit / ${own}u * ${valueWords}u];
  }
  let end = span.x + span.y;
  for (var first = span.x; first < end; first += ${DELTA_CHUNK}u) {
    let last = min(first + ${DELTA_CHUNK}u, end) - 1u;
    workgroupBarrier();
    for (var unit = local; unit < ${DELTA_CHUNK * own}u; unit += ${THREADS}u) {
      let row = first + unit / ${own}u;
      var update = vec4<f32>();
      if (row <= last) {
        let solvedStart = (row * params.kvHeads + kvHead) * ${solvedWords}u;
        var known = vec4<f32>();
        ${timesState("known", "solved", "solvedStart")}
        update = solved[solvedStart + ${keyWords}u + column] - known;
        if (inside) { solved[solvedStart + ${keyWords}u + column] = update; }
        ${decay ? "let gate = gates[row * params.kvHeads + kvHead];" : ""}
        for (var head = kvHead * groupSize; head < (kvHead + 1u) * groupSize; head++) {
          let queryStart = (row * params.qStride + params.qOffset) / 4u + head * ${keyWords}u;
          var output = vec4<f32>();
          ${timesState("output", "q", "queryStart")}
          if (inside) { out[(row * params.heads + head) * ${valueWords}u + column] = ${
    decay ? "gate.x * output" : "output"
  }; }
        }
        ${decay ? "update *= gate.y;" : ""}
      }
      // Rows over the end write nothing.
      updates[unit] = update;
    }
    workgroupBarrier();
    ${decay ? "let chunkDecay = gates[last * params.kvHeads + kvHead].x;" : ""}
    for (var unit = local; unit < ${keyWords * own}u; unit += ${THREADS}u) {
      let at = unit / ${own}u * ${4 * own}u + word;
      ${unroll(4, (c) => `var s${c} = ${decay ? "chunkDecay * " : ""}columns[at + ${c * own}u];`)}
      for (var row = first; row <= last; row += 8u) {
        ${
    unroll(8, (r) =>
      `{
          let key = k[(min(row + ${r}u, last) * params.kStride + params.kOffset) / 4u + kvHead * ${keyWords}u + unit / ${own}u];
          let update = updates[(row - first + ${r}u) * ${own}u + word];
          ${unroll(4, (c) => `s${c} = fma(vec4<f32>(key.${COMPONENTS[c]}), update, s${c});`)}
        }`)
  }
      }
      ${unroll(4, (c) => `columns[at + ${c * own}u] = s${c};`)}
    }
  }
  workgroupBarrier();
  if (states[sequence].done != 0u || !inside) { return; }
  for (var unit = local; unit < ${keySize * own}u; unit += ${THREADS}u) {
    state[stateStart + unit / ${own}u * ${valueWords}u] = columns[unit];
  }
}
`;
  return defineKernel({
    name: `linearDeltaScan ${keySize} ${valueSize}${decay ? " decay" : ""}`,
    parameters: {
      sequences: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("k", "array<vec4<f32>>"),
      write("solved", "array<vec4<f32>>"),
      ...(decay ? [read("gates", "array<vec2<f32>>")] : []),
      read("spans", "array<vec2<u32>>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ sequences, kvHeads }) => [sequences, kvHeads, Math.ceil(valueWords / own)],
    body,
  });
}
