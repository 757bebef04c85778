// Naive f64 references of the linear family. Arrays are row-major; nothing is shared with the kernels.

/** x / (1 + e^-x). */
export function siluOracle(x: number): number {
  return x / (1 + Math.exp(-x));
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

/** silu of the left half of every row times its right half. */
export function swigluOracle(x: Float64Array, rows: number, width: number): Float64Array {
  const out = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < width; j++) {
      out[r * width + j] = siluOracle(x[r * 2 * width + j]) * x[r * 2 * width + width + j];
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
