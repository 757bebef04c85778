// Division of each head by a number of its own. One output an element, see elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/**
 * out[r, h, i] = x[r, h, i] / max(denominators[r, h] + epsilon, least), or without `clamped` / (denominators[r, h] + epsilon).
 * Bindings `x` [rows, heads * size] (columns of rows `stride` apart), `denominators` [rows, heads], `out`, all f32.
 */
export function divideHeads(spec: { readonly clamped: boolean }): Kernel {
  const divisor = "denominators[row * params.heads + column / params.size] + params.epsilon";
  return defineKernel({
    name: `divideHeads${spec.clamped ? " clamped" : ""}`,
    parameters: {
      rows: "u32",
      heads: "u32",
      size: "u32",
      stride: "u32",
      offset: "u32",
      epsilon: "f32",
      least: "f32",
    },
    bindings: [read("x", "array<f32>"), read("denominators", "array<f32>"), write("out", "array<f32>")],
    grid: ({ rows, heads, size }) => elementwiseGrid(rows * heads * size),
    body: `
fn element(i: u32) {
  let width = params.heads * params.size;
  let row = i / width;
  let column = i % width;
  out[i] = x[row * params.stride + params.offset + column] / ${
      spec.clamped ? `max(${divisor}, params.least)` : `(${divisor})`
    };
}
${elementwiseMain("params.rows * params.heads * params.size")}`,
  });
}
