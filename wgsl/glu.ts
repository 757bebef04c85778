// A gated linear unit's product (Dauphin et al. 2017; SwiGLU: Shazeer 2020): activation(gate) · up. One output an element,
// see elementwise.ts.
//
//   gate:  | .. gateOffset [ width columns ] .. |  a row, gateStride long
//   up:    | .. upOffset   [ width columns ] .. |  a row, upStride long; the two may be one buffer
//   out:   | width |                               rows side by side

import { type Activation, activationText } from "./activations.ts";
import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/**
 * out[r, j] = activation(gate[r, gateOffset + j]) * up[r, upOffset + j]. Bindings `gate` [rows, gateStride], `up` [rows,
 * upStride], `out` [rows, width], all f32.
 */
export function glu(activation: Activation): Kernel {
  return defineKernel({
    name: `glu ${activation}`,
    parameters: {
      rows: "u32",
      width: "u32",
      gateStride: "u32",
      gateOffset: "u32",
      upStride: "u32",
      upOffset: "u32",
    },
    bindings: [read("gate", "array<f32>"), read("up", "array<f32>"), write("out", "array<f32>")],
    grid: ({ rows, width }) => elementwiseGrid(rows * width),
    body: `
${activationText(activation)}
fn element(i: u32) {
  let row = i / params.width;
  let column = i - row * params.width;
  let factor = ${activation}(gate[row * params.gateStride + params.gateOffset + column]);
  out[i] = factor * up[row * params.upStride + params.upOffset + column];
}
${elementwiseMain("params.rows * params.width")}`,
  });
}
