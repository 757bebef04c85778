// Derivatives of three kinds of attention by their scores, in closed form and in f64 (Qin et al. 2022, arXiv:2210.10340,
// section 3.1): what the kernels' own derivatives are compared with.

/** A kind of attention: what becomes of a row's scores s and the values v. */
export type Form =
  /** Σ exp(s) v over Σ exp(s). */
  | { readonly kind: "softmax" }
  /** Σ s v over Σ s. */
  | { readonly kind: "linear" }
  /** Σ s v over its root mean square, guarded by an epsilon inside of the root or added to it. */
  | { readonly kind: "norm"; readonly epsilon: number; readonly placement: "inside" | "additive" };

/** A row's output, and the derivatives of a loss by its scores. */
export interface RowGradient {
  /** Output [width]. */
  readonly output: Float64Array;
  /** dL / ds_j for each score. */
  readonly derivatives: Float64Array;
}

/** The dot product of two vectors. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The weights that a row's values are summed with: before the norm, where there is one. */
function weights(form: Form, scores: ArrayLike<number>): Float64Array {
  if (form.kind === "norm") return Float64Array.from(scores);
  const highest = Math.max(...Array.from(scores));
  const raised = Float64Array.from(scores, (s) => form.kind === "softmax" ? Math.exp(s - highest) : s);
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((weight) => weight / sum);
}

/** Σ weight · value: [width]. */
function mix(by: Float64Array, values: readonly ArrayLike<number>[]): Float64Array {
  const mixed = new Float64Array(values[0].length);
  by.forEach((weight, j) => {
    for (let c = 0; c < mixed.length; c++) mixed[c] += weight * values[j][c];
  });
  return mixed;
}

/** What a norm divides by, and that without its epsilon. */
function divisor(form: Form & { kind: "norm" }, t: Float64Array): { sigma: number; rho: number } {
  const square = dot(t, t) / t.length;
  const sigma = Math.sqrt(square);
  return {
    sigma,
    rho: form.placement === "inside" ? Math.sqrt(square + form.epsilon) : sigma + form.epsilon,
  };
}

/** What a row of attention puts out [width], of its scores and the values [keys][width]. */
export function rowOutput(
  form: Form,
  scores: ArrayLike<number>,
  values: readonly ArrayLike<number>[],
): Float64Array {
  const mixed = mix(weights(form, scores), values);
  if (form.kind !== "norm") return mixed;
  const { rho } = divisor(form, mixed);
  return mixed.map((t) => t / rho);
}

/**
 * dL / ds_j of a loss whose gradient by the row's output is given. With unit vectors as values and as gradient these are the
 * derivatives of the weights themselves.
 *
 *   softmax    p_j g · (v_j - o)                  at most 1/4 of a weight
 *   linear     g · (v_j - o) / Σ s                no bound: it grows as the scores fall
 *   norm       (g · v_j - (g · o) (o · v_j) / d · ρ / σ) / ρ
 */
export function rowGradient(
  form: Form,
  scores: ArrayLike<number>,
  values: readonly ArrayLike<number>[],
  gradient: ArrayLike<number>,
): RowGradient {
  const output = rowOutput(form, scores, values);
  const along = dot(gradient, output);
  if (form.kind === "norm") {
    const mixed = mix(weights(form, scores), values);
    const { sigma, rho } = divisor(form, mixed);
    // Inside of the root the norm's derivative is t / (d ρ), added to it t / (d σ).
    const ratio = form.placement === "inside" ? 1 : rho / sigma;
    const derivatives = Float64Array.from(
      values,
      (value) => (dot(gradient, value) - ratio * along * dot(output, value) / output.length) / rho,
    );
    return { output, derivatives };
  }
  const p = weights(form, scores);
  const sum = Array.from(scores).reduce((a, b) => a + b, 0);
  const derivatives = Float64Array.from(
    values,
    (value, j) => (dot(gradient, value) - along) * (form.kind === "softmax" ? p[j] : 1 / sum),
  );
  return { output, derivatives };
}

/** The largest |dp_j / ds_k| where all scores of a row of `keys` are `score` and the values are unit vectors. */
export function equalScoresDerivative(form: Form, score: number, keys: number): number {
  const p = 1 / keys;
  if (form.kind === "softmax") return p * (1 - p);
  if (form.kind === "linear") return p * (1 - p) / score;
  const rho = form.placement === "inside" ? Math.sqrt(score ** 2 + form.epsilon) : score + form.epsilon;
  const other = form.placement === "inside" ? rho : score;
  return (1 - score ** 2 / (keys * rho * other)) / rho;
}

/** Bounds of |dL / ds| where the loss's gradient by a row is at most c1 long and a value at most c2. */
export interface NormBounds {
  /** c1 c2 / sqrt(ε), the spectral norm of what the norm does; with the epsilon added to the root, c1 c2 / ε. */
  readonly tight: number;
  /** 3 c1 c2 d / (2 sqrt(ε)), the paper's; not known where the epsilon is added. */
  readonly loose?: number;
}

/** Bounds of NormAttention over `width` columns. */
export function normBounds(form: Form & { kind: "norm" }, c1: number, c2: number, width: number): NormBounds {
  if (form.placement === "additive") return { tight: c1 * c2 / form.epsilon };
  const tight = c1 * c2 / Math.sqrt(form.epsilon);
  return { tight, loose: 1.5 * width * tight };
}

/** 1 + elu(x), without cancellation where x is low. */
export function feature(x: number): number {
  return x > 0 ? 1 + x : Math.exp(x);
}

/** The x of which {@linkcode feature} is y. */
export function featureInverse(y: number): number {
  return y > 1 ? y - 1 : Math.log(y);
}
