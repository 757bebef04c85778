// Picks rows by a map. One output an element, see elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/**
 * out[i, c] = x[map[i], offset + c] for i below `rows`, c below `width`. Bindings `x` [.., stride] f32, `map` [rows] u32,
 * `out` [rows, width] f32.
 */
export function gatherRows(): Kernel {
  return defineKernel({
    name: "gatherRows",
    parameters: { rows: "u32", width: "u32", stride: "u32", offset: "u32" },
    bindings: [read("x", "array<f32>"), read("map", "array<u32>"), write("out", "array<f32>")],
    grid: ({ rows, width }) => elementwiseGrid(rows * width),
    body: `
fn element(i: u32) {
  let row = i / params.width;
  out[i] = x[map[row] * params.stride + params.offset + (i - row * params.width)];
}
${elementwiseMain("params.rows * params.width")}`,
  });
}
