// SwiGLU (Shazeer 2020, arXiv:2002.05202) of gate and up projections that stand side by side in a row. One output an
// element, see elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { SILU } from "./silu.ts";

/** out[r, j] = silu(x[r, j]) * x[r, width + j]. Bindings `x` [rows, 2 * width] f32, `out` [rows, width] f32. */
export function swiglu(): Kernel {
  return defineKernel({
    name: "swiglu",
    parameters: { rows: "u32", width: "u32" },
    bindings: [read("x", "array<f32>"), write("out", "array<f32>")],
    grid: ({ rows, width }) => elementwiseGrid(rows * width),
    body: `
${SILU}
fn element(i: u32) {
  let gate = i + i / params.width * params.width;
  out[i] = silu(x[gate]) * x[gate + params.width];
}
${elementwiseMain("params.rows * params.width")}`,
  });
}
