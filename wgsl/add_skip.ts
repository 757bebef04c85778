// Adds every head's value times a number to what the head put out. One output an element, see elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/**
 * out[r, h, j] = x[r, h, j] + skip[g] * v[r, offset + g * headSize + j], g the KV head of h. Bindings `x` [rows, heads *
 * headSize] f32, `v` [rows, stride] f32, `skip` [kvHeads] f32, `out` as `x`.
 */
export function addSkip(): Kernel {
  return defineKernel({
    name: "addSkip",
    parameters: { rows: "u32", heads: "u32", kvHeads: "u32", headSize: "u32", stride: "u32", offset: "u32" },
    bindings: [
      read("x", "array<f32>"),
      read("v", "array<f32>"),
      read("skip", "array<f32>"),
      write("out", "array<f32>"),
    ],
    grid: ({ rows, heads, headSize }) => elementwiseGrid(rows * heads * headSize),
    body: `
fn element(i: u32) {
  let width = params.heads * params.headSize;
  let row = i / width;
  let head = i % width / params.headSize;
  let kvHead = head / (params.heads / params.kvHeads);
  let value = v[row * params.stride + params.offset + kvHead * params.headSize + i % params.headSize];
  out[i] = fma(skip[kvHead], value, x[i]);
}
${elementwiseMain("params.rows * params.heads * params.headSize")}`,
  });
}
