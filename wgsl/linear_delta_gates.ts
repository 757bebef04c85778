// Strengths and decays of the gated delta rule side by side, as the recurrent kernel reads them. One output an element, see
// elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/**
 * gates[r, h] = (beta[r, h], exp(logDecay[r, h])). Bindings `beta` and `logDecay` f32 with strides and offsets of their own,
 * `gates` [rows, kvHeads] pairs of f32.
 */
export function linearDeltaGates(): Kernel {
  return defineKernel({
    name: "linearDeltaGates",
    parameters: {
      rows: "u32",
      kvHeads: "u32",
      betaStride: "u32",
      betaOffset: "u32",
      decayStride: "u32",
      decayOffset: "u32",
    },
    bindings: [
      read("beta", "array<f32>"),
      read("logDecay", "array<f32>"),
      write("gates", "array<vec2<f32>>"),
    ],
    grid: ({ rows, kvHeads }) => elementwiseGrid(rows * kvHeads),
    body: `
fn element(i: u32) {
  let row = i / params.kvHeads;
  let head = i % params.kvHeads;
  gates[i] = vec2<f32>(
    beta[row * params.betaStride + params.betaOffset + head],
    exp(logDecay[row * params.decayStride + params.decayOffset + head]),
  );
}
${elementwiseMain("params.rows * params.kvHeads")}`,
  });
}
