// Elementwise sum. One output an element, see elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/** out[i] = a[i] + b[i] for i below `count`. Bindings `a`, `b`, `out`, all f32. */
export function add(): Kernel {
  return defineKernel({
    name: "add",
    parameters: { count: "u32" },
    bindings: [read("a", "array<f32>"), read("b", "array<f32>"), write("out", "array<f32>")],
    grid: ({ count }) => elementwiseGrid(count),
    body: `
fn element(i: u32) {
  out[i] = a[i] + b[i];
}
${elementwiseMain("params.count")}`,
  });
}
