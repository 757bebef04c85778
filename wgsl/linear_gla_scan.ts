// The part of gated linear attention that goes from chunk to chunk: what a chunk's queries read of the state before it, and
// the state after it.
//
//   O_i = (q_i exp(G_i)) S     S' = diag(exp(G_C)) S + sum over j of (k_j exp(G_C - G_j)) v_jᵀ
//
// A workgroup owns 16 columns (4 words; 8 columns where keys are over 128 long) of the state of one sequence and KV head,
// in workgroup memory, and walks over the sequence's chunks:
//
//   rows of a chunk    O: one word of one row an invocation              word 0   word 1   word 2   word 3
//                                                                  row 0 | t0       t1       t2       t3
//                                                                  row 1 | t4       t5 ...
//   rows of S          S': one word of four rows an invocation
//                                                                0 .. 3  | t0       t1       t2       t3
//                                                                4 .. 7  | t4       t5 ...

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { checkStateHeadSizes, scanWords, type StateHeadSizes, unrollFactor } from "./state_heads.ts";
import { GLA_CHUNK } from "./linear_gla_decay.ts";
import { STATE_STRUCT } from "./tables.ts";

const THREADS = 64;
const COMPONENTS = ["x", "y", "z", "w"];

/**
 * Bindings `q`, `v` [rows, ..] f32 with strides and offsets that are multiples of 4; `decayed` of linearGlaDecay; `spans`,
 * `states`, `state` [sequences][kvHeads][keySize][valueSize] f32; `out` [rows, heads * valueSize]: O. States of sequences
 * that are done stay as they are.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearGlaScan(spec: StateHeadSizes): Kernel {
  checkStateHeadSizes(spec);
  const { keySize, valueSize } = spec;
  const own = scanWords(keySize);
  const keyWords = keySize / 4;
  const valueWords = valueSize / 4;
  const steps = unrollFactor(keyWords);
  const body = `
${STATE_STRUCT}
var<workgroup> columns: array<vec4<f32>, ${keySize * own}>;
var<workgroup> values: array<vec4<f32>, ${GLA_CHUNK * own}>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.x;
  let kvHead = group.y;
  let span = spans[sequence];
  if (span.y == 0u) { return; }
  let groupSize = params.heads / params.kvHeads;
  let width = params.kvHeads * ${keyWords}u;
  let word = local % ${own}u;
  let inside = group.z * ${own}u + word < ${valueWords}u;
  // Columns over the end repeat the last ones and are not stored.
  let column = min(group.z * ${own}u + word, ${valueWords - 1}u);
  let stateStart = (sequence * params.kvHeads + kvHead) * ${keySize * valueWords}u + column;
  for (var unit = local; unit < ${keySize * own}u; unit += ${THREADS}u) {
    columns[unit] = state[stateStart + unit / ${own}u * ${valueWords}u];
  }
  let end = span.x + span.y;
  for (var first = span.x; first < end; first += ${GLA_CHUNK}u) {
    let last = min(first + ${GLA_CHUNK}u, end) - 1u;
    workgroupBarrier();
    if (local < ${GLA_CHUNK * own}u) {
      let row = first + local / ${own}u;
      let value = v[(min(row, last) * params.vStride + params.vOffset) / 4u + kvHead * ${valueWords}u + column];
      values[local] = select(vec4<f32>(), value, row <= last);
      if (row <= last) {
        let decayStart = row * 2u * width + kvHead * ${keyWords}u;
        for (var head = kvHead * groupSize; head < (kvHead + 1u) * groupSize; head++) {
          let queryStart = (row * params.qStride + params.qOffset) / 4u + head * ${keyWords}u;
          var output = vec4<f32>();
          for (var key = 0u; key < ${keyWords}u; key += ${steps}u) {
            let at = key * ${4 * own}u + word;
            ${
    unroll(steps, (s) =>
      `let a${s} = q[queryStart + key + ${s}u] * decayed[decayStart + key + ${s}u];
            ${
        unroll(4, (c) =>
          `output = fma(vec4<f32>(a${s}.${COMPONENTS[c]}), columns[at + ${(4 * s + c) * own}u], output);`)
      }`)
  }
          }
          if (inside) { out[(row * params.heads + head) * ${valueWords}u + column] = output; }
        }
      }
    }
    workgroupBarrier();
    for (var unit = local; unit < ${keyWords * own}u; unit += ${THREADS}u) {
      let key = unit / ${own}u;
      let at = key * ${4 * own}u + word;
      let chunkDecay = decayed[last * 2u * width + kvHead * ${keyWords}u + key];
      ${unroll(4, (c) => `var s${c} = chunkDecay.${COMPONENTS[c]} * columns[at + ${c * own}u];`)}
      for (var row = first; row <= last; row += 8u) {
        ${
    unroll(8, (r) =>
      `{
          let decayedKey = decayed[(min(row + ${r}u, last) * 2u + 1u) * width + kvHead * ${keyWords}u + key];
          let value = values[(row - first + ${r}u) * ${own}u + word];
          ${unroll(4, (c) => `s${c} = fma(vec4<f32>(decayedKey.${COMPONENTS[c]}), value, s${c});`)}
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
    name: `linearGlaScan ${keySize} ${valueSize}`,
    parameters: {
      sequences: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("v", "array<vec4<f32>>"),
      read("decayed", "array<vec4<f32>>"),
      read("spans", "array<vec2<u32>>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ sequences, kvHeads }) => [sequences, kvHeads, Math.ceil(valueWords / own)],
    body,
  });
}
