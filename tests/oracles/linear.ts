// Naive f64 references of the linear family. Arrays are row-major; nothing is shared with the kernels.

import type { Activation } from "../../wgsl/activations.ts";

/** 2 / √π times the integral of e^(-t²) from 0 to x, by its series. */
function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  let term = z;
  let sum = z;
  // The signs alternate; for e^z² erf they do not.
  for (let i = 1; i < 200; i++) sum += term *= 2 * z * z / (2 * i + 1);
  return Math.sign(x) * 2 / Math.sqrt(Math.PI) * Math.exp(-z * z) * sum;
}

/** An activation of gated layers. */
export function activationOracle(activation: Activation, x: number): number {
  switch (activation) {
    case "identity":
      return x;
    case "silu":
      return x / (1 + Math.exp(-x));
    case "gelu":
      return x * 0.5 * (1 + erf(x / Math.SQRT2));
    case "geluTanh":
      return x * 0.5 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
    case "relu":
      return Math.max(x, 0);
    case "sigmoid":
      return 1 / (1 + Math.exp(-x));
  }
}

/** out[r * n + j] = sum over i of x[r * inputStride + i] * w[(firstRow + j) * k + i]. */
export function linearOracle(
  x: Float64Array,
  w: Float64Array,
  shape: { rows: number; k: number; n: number; inputStride?: number; firstRow?: number },
): Float64Array {
  const { rows, k, n, inputStride = k, firstRow = 0 } = shape;
  const out = new Float64Array(rows * n);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let i = 0; i < k; i++) sum += x[r * inputStride + i] * w[(firstRow + j) * k + i];
      out[r * n + j] = sum;
    }
  }
  return out;
}

/**
 * As {@linkcode linearOracle}, in parts: [splits, rows, n], of which part i has the numbers of every row from
 * 16 · floor(i · stretches / splits) on, where k takes so many stretches of 16.
 */
export function splitLinearOracle(
  x: Float64Array,
  w: Float64Array,
  shape: { rows: number; k: number; n: number; splits: number; inputStride?: number; firstRow?: number },
): Float64Array {
  const { rows, k, n, splits, inputStride = k } = shape;
  const stretches = Math.ceil(k / 16);
  const out = new Float64Array(splits * rows * n);
  for (let split = 0; split < splits; split++) {
    const first = 16 * Math.floor(split * stretches / splits);
    const end = 16 * Math.floor((split + 1) * stretches / splits);
    const part = x.map((value, i) => i % inputStride >= first && i % inputStride < end ? value : 0);
    out.set(linearOracle(part, w, shape), split * rows * n);
  }
  return out;
}

/** Every row of `x` (of `width`, `stride` apart) over its root mean square, times `weight`. Rows come out dense. */
export function rmsNormOracle(
  x: Float64Array,
  weight: Float64Array | undefined,
  shape: { rows: number; width: number; stride?: number; eps: number },
): Float64Array {
  const { rows, width, stride = width, eps } = shape;
  const out = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) {
    const row = x.subarray(r * stride, r * stride + width);
    let squares = 0;
    for (const value of row) squares += value * value;
    const rms = Math.sqrt(squares / width + eps);
    row.forEach((value, i) => out[r * width + i] = value / rms * (weight ? weight[i] : 1));
  }
  return out;
}

/** Norms of `groups` parts of each row; weight and bias span the row, or one part and then hold for all. */
export function normRowsOracle(
  x: Float64Array,
  { rows, width, kind, epsilon, additive = false, groups = 1, weight, bias }: {
    rows: number;
    width: number;
    kind: "rms" | "layer";
    epsilon: number;
    additive?: boolean;
    groups?: number;
    weight?: Float64Array;
    bias?: Float64Array;
  },
): Float64Array {
  const out = new Float64Array(rows * width);
  const size = width / groups;
  for (let first = 0; first < rows * width; first += size) {
    const part = x.subarray(first, first + size);
    const mean = kind === "layer" ? part.reduce((sum, value) => sum + value, 0) / size : 0;
    const square = part.reduce((sum, value) => sum + (value - mean) ** 2, 0) / size;
    const root = additive ? Math.sqrt(square) + epsilon : Math.sqrt(square + epsilon);
    part.forEach((value, i) => {
      const at = (first + i) % width;
      const of = (parameter: Float64Array) => parameter[at % parameter.length];
      out[first + i] = (value - mean) / root * (weight ? of(weight) : 1) + (bias ? of(bias) : 0);
    });
  }
  return out;
}

/** The activation of the left half of every row times its right half. */
export function gluOracle(
  x: Float64Array,
  rows: number,
  width: number,
  activation: Activation = "silu",
): Float64Array {
  const out = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < width; j++) {
      out[r * width + j] = activationOracle(activation, x[r * 2 * width + j]) * x[r * 2 * width + width + j];
    }
  }
  return out;
}

/** Columns from `offset` on of the rows of `x` picked by `map`; all of them unless told otherwise. */
export function gatherRowsOracle(
  x: Float64Array,
  map: ArrayLike<number>,
  width: number,
  { stride = width, offset = 0 }: { stride?: number; offset?: number } = {},
): Float64Array {
  const out = new Float64Array(map.length * width);
  for (let r = 0; r < map.length; r++) {
    for (let i = 0; i < width; i++) out[r * width + i] = x[map[r] * stride + offset + i];
  }
  return out;
}
