// Gates of linear attention: what a projection gives becomes a decay's logarithm or a strength between 0 and 1. One output
// an element, see elementwise.ts.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";

/**
 * What is made of x:
 *
 * - `sigmoid`: 1 / (1 + exp(-x))
 * - `softplus`: log(1 + exp(x + bias))
 * - `log-sigmoid`: log(sigmoid(x)) / scale (GLA's decay by key component)
 * - `state-space`: -rate · log(1 + exp(x + bias)) (the decay of Mamba-2 and Gated DeltaNet)
 */
export type GateKind = "sigmoid" | "softplus" | "log-sigmoid" | "state-space";

/**
 * out[r, j] = gate(x[r, offset + j]). Bindings `x` [rows, stride] f32, `constants` [2, width] f32 (rates, then biases; with
 * `softplus` and `state-space`), `out` [rows, width] f32.
 */
export function gate(kind: GateKind): Kernel {
  const constants = kind === "softplus" || kind === "state-space";
  // Stable at both ends: exp is taken of what is not positive.
  const softplus = (x: string) => `(max(${x}, 0.0) + log(1.0 + exp(-abs(${x}))))`;
  const value = {
    sigmoid: "select(exp(v) / (1.0 + exp(v)), 1.0 / (1.0 + exp(-v)), v >= 0.0)",
    softplus: softplus("v"),
    "log-sigmoid": `-${softplus("(-v)")} / params.scale`,
    "state-space": `-constants[column] * ${softplus("v")}`,
  }[kind];
  return defineKernel({
    name: `gate ${kind}`,
    parameters: { rows: "u32", width: "u32", stride: "u32", offset: "u32", scale: "f32" },
    bindings: [
      read("x", "array<f32>"),
      ...(constants ? [read("constants", "array<f32>")] : []),
      write("out", "array<f32>"),
    ],
    grid: ({ rows, width }) => elementwiseGrid(rows * width),
    body: `
fn element(i: u32) {
  let row = i / params.width;
  let column = i % params.width;
  let v = clamp(x[row * params.stride + params.offset + column]${
      constants ? " + constants[params.width + column]" : ""
    }, -1e30, 1e30);
  out[i] = ${value};
}
${elementwiseMain("params.rows * params.width")}`,
  });
}
