// The delta rule row by row, plain (arXiv:2102.11174) and gated (arXiv:2412.06464): for decode and for short prompts.
//
//   S *= decay     u = beta (v - Sᵀ k)     S += k uᵀ     o = Sᵀ q
//
// A workgroup owns 16 columns (4 words) of the state of one sequence and KV head, and holds them in registers from the
// first row to the last. Invocation local = 4 * part + word has one word of every 16th row of the state:
//
//              word 0   word 1   word 2   word 3
//   row  0   |   t0       t1       t2       t3          k, q: component `row` of the key and of the query
//   row  1   |   t4       t5       t6       t7          v, o: these columns
//   ...
//   row 15   |   t60      t61      t62      t63
//   row 16   |   t0       t1 ...
//
// A product with k or q is summed over own rows first, then over the 16 parts through workgroup memory.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { checkStateHeadSizes, type StateHeadSizes } from "./state_heads.ts";
import { recurrentColumns, recurrentRows, recurrentState } from "./state_registers.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearDeltaRecurrent}. */
export interface LinearDeltaRecurrentSpec extends StateHeadSizes {
  /** Whether the state decays: then `gates` holds pairs (beta, decay), dense, else betas. */
  readonly decay: boolean;
  /** How rows are found: `rows`: each is the only one of its sequence; `spans`: by sequence. */
  readonly table: "rows" | "spans";
}

/**
 * Advances the states of all sequences by their rows, in order, and puts out o [rows, heads * valueSize]. Query head h reads
 * the state of KV head h / (heads / kvHeads). Bindings `q`, `k`, `v` [rows, ..] f32 with strides and offsets, `gates`,
 * `table` (rows or spans), `states`, `state` [sequences][kvHeads][keySize][valueSize] f32, `out`. States of sequences that
 * are done stay as they are. `items` is the number of rows, or of sequences. Offsets and strides of v are multiples of 4.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearDeltaRecurrent(spec: LinearDeltaRecurrentSpec): Kernel {
  checkStateHeadSizes(spec);
  const { keySize, valueSize, decay, table } = spec;
  const registers = recurrentState(spec);
  const { own } = registers;
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
    ${registers.vector("k", "k", "keyStart")}
    ${
    decay
      ? `let gate = gates[row * params.kvHeads + kvHead];
    let beta = gate.x;
    ${unroll(own, (i) => `s${i} *= gate.y;`)}`
      : "let beta = gates[row * params.betaStride + params.betaOffset + kvHead];"
  }
    let value = v[(row * params.vStride + params.vOffset + kvHead * ${valueSize}u) / 4u + column];
    let update = beta * (value - total(${registers.product("k")}, local));
    ${unroll(own, (i) => `s${i} = fma(vec4<f32>(k${i}), update, s${i});`)}
    ${registers.outputs}
  }
  ${registers.store}
}
`;
  return defineKernel({
    name: `linearDeltaRecurrent ${keySize} ${valueSize}${decay ? " decay" : ""} ${table}`,
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
      betaStride: "u32",
      betaOffset: "u32",
    },
    bindings: [
      read("q", "array<f32>"),
      read("k", "array<f32>"),
      read("v", "array<vec4<f32>>"),
      read("gates", decay ? "array<vec2<f32>>" : "array<f32>"),
      read("table", table === "rows" ? "array<Row>" : "array<vec2<u32>>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ items, kvHeads }) => [items, kvHeads, registers.blocks],
    body,
  });
}
