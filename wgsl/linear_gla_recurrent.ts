// Gated linear attention (arXiv:2312.06635) row by row: for decode and for short prompts.
//
//   S = diag(exp(g)) S + k vᵀ     o = Sᵀ q
//
// A workgroup owns 16 columns of the state of one sequence and KV head, in registers from the first row to the last;
// linear_delta_recurrent.ts draws how invocations map to it.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { checkStateHeadSizes, type StateHeadSizes } from "./state_heads.ts";
import { recurrentColumns, recurrentRows, recurrentState } from "./state_registers.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearGlaRecurrent}. */
export interface LinearGlaRecurrentSpec extends StateHeadSizes {
  /** How rows are found: `rows`: each is the only one of its sequence; `spans`: by sequence. */
  readonly table: "rows" | "spans";
}

/**
 * Advances the states of all sequences by their rows, in order, and puts out o [rows, heads * valueSize]. Query head h reads
 * the state of KV head h / (heads / kvHeads). Bindings `q`, `k`, `v`, `logDecay` [rows, ..] f32 with strides and offsets,
 * `table` (rows or spans), `states`, `state` [sequences][kvHeads][keySize][valueSize] f32, `out`. States of sequences that
 * are done stay as they are. `items` is the number of rows, or of sequences. Offsets and strides of v are multiples of 4.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearGlaRecurrent(spec: LinearGlaRecurrentSpec): Kernel {
  checkStateHeadSizes(spec);
  const { keySize, valueSize, table } = spec;
  const registers = recurrentState(spec);
  const body = `
${ROW_STRUCT}
${STATE_STRUCT}
${registers.declarations}
@compute @workgroup_size(${registers.threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  ${recurrentRows(table)}
  ${recurrentColumns(spec)}
  ${registers.load}
  for (var row = first; row < first + count; row++) {
    let keyStart = row * params.kStride + params.kOffset + kvHead * ${keySize}u;
    let decayStart = row * params.decayStride + params.decayOffset + kvHead * ${keySize}u;
    let value = v[(row * params.vStride + params.vOffset + kvHead * ${valueSize}u) / 4u + column];
    ${registers.vector("k", "k", "keyStart")}
    ${registers.vector("g", "logDecay", "decayStart")}
    ${unroll(registers.own, (i) => `s${i} = fma(vec4<f32>(k${i}), value, exp(g${i}) * s${i});`)}
    ${registers.outputs}
  }
  ${registers.store}
}
`;
  return defineKernel({
    name: `linearGlaRecurrent ${keySize} ${valueSize} ${table}`,
    parameters: {
      items: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      decayStride: "u32",
      decayOffset: "u32",
    },
    bindings: [
      read("q", "array<f32>"),
      read("k", "array<f32>"),
      read("v", "array<vec4<f32>>"),
      read("logDecay", "array<f32>"),
      read("table", table === "rows" ? "array<Row>" : "array<vec2<u32>>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ items, kvHeads }) => [items, kvHeads, registers.blocks],
    body,
  });
}
