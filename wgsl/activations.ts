// Activations of gated layers as WGSL text.

import { SILU } from "./silu.ts";

/** An activation; `gelu` is the exact one with erf, `geluTanh` its approximation by tanh. */
export type Activation = "identity" | "silu" | "gelu" | "geluTanh" | "relu" | "sigmoid";

/** All activations. */
export const ACTIVATIONS: readonly Activation[] = [
  "identity",
  "silu",
  "gelu",
  "geluTanh",
  "relu",
  "sigmoid",
];

// exp overflows f32 from 88.7 on, and WGSL promises nothing about infinities: exponents are held at 80.
const SIGMOID = `fn sigmoid(x: f32) -> f32 {
  return 1.0 / (1.0 + exp(min(-x, 80.0)));
}
`;

// The tail of the normal distribution by a Chebyshev fit of erfc (Numerical Recipes, erfcc): right to 1.2e-7 of itself.
const GELU = `fn gelu(x: f32) -> f32 {
  let z = min(abs(x) * 0.70710678, 10.0);
  let t = 1.0 / (1.0 + 0.5 * z);
  var fit = 0.17087277;
  fit = fma(fit, t, -0.82215223);
  fit = fma(fit, t, 1.48851587);
  fit = fma(fit, t, -1.13520398);
  fit = fma(fit, t, 0.27886807);
  fit = fma(fit, t, -0.18628806);
  fit = fma(fit, t, 0.09678418);
  fit = fma(fit, t, 0.37409196);
  fit = fma(fit, t, 1.00002368);
  let tail = 0.5 * t * exp(fma(fit, t, -z * z - 1.26551223));
  return x * select(tail, 1.0 - tail, x > 0.0);
}
`;

// 1 + tanh(y) is twice the sigmoid of 2 y. Beyond 20 nothing changes any more, and x³ stays finite.
const GELU_TANH = `${SIGMOID}fn geluTanh(x: f32) -> f32 {
  let y = clamp(x, -20.0, 20.0);
  return x * sigmoid(1.5957691216 * fma(0.044715 * y * y, y, y));
}
`;

const TEXT: Readonly<Record<Activation, string>> = {
  identity: "fn identity(x: f32) -> f32 { return x; }\n",
  silu: SILU,
  gelu: GELU,
  geluTanh: GELU_TANH,
  relu: "fn relu(x: f32) -> f32 { return max(x, 0.0); }\n",
  sigmoid: SIGMOID,
};

/** `fn NAME(x: f32) -> f32`, called as the activation is. */
export function activationText(activation: Activation): string {
  return TEXT[activation];
}
