// Multiplies heads by one number each. One output an element, see elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/**
 * out[r, h, j] = x[r, offset + h * headSize + j] * factor[r, h]. Bindings `x` [rows, stride] f32, `factor` [rows, heads] f32,
 * `out` [rows, heads * headSize] f32.
 */
export function scaleHeads(): Kernel {
  return defineKernel({
    name: "scaleHeads",
    parameters: { rows: "u32", heads: "u32", headSize: "u32", stride: "u32", offset: "u32" },
    bindings: [read("x", "array<f32>"), read("factor", "array<f32>"), write("out", "array<f32>")],
    grid: ({ rows, heads, headSize }) => elementwiseGrid(rows * heads * headSize),
    body: `
fn element(i: u32) {
  let width = params.heads * params.headSize;
  let row = i / width;
  let column = i % width;
  out[i] = x[row * params.stride + params.offset + column] * factor[row * params.heads + column / params.headSize];
}
${elementwiseMain("params.rows * params.heads * params.headSize")}`,
  });
}
