// The delta rule from its definition, in f64: one row after the other.

/** One row of one KV head. */
export interface DeltaRow {
  /** Key [keySize]. */
  readonly k: ArrayLike<number>;
  /** Value [valueSize]. */
  readonly v: ArrayLike<number>;
  /** How much of what the key had stored is replaced. */
  readonly beta: number;
  /** Natural log of the decay. */
  readonly logDecay: number;
}

/** S = exp(g) S; u = beta (v - Sᵀ k); S = S + k uᵀ, in place; `state` is [keySize][valueSize]. */
export function deltaStep(state: Float64Array, { k, v, beta, logDecay }: DeltaRow): void {
  const decay = Math.exp(logDecay);
  for (let i = 0; i < state.length; i++) state[i] *= decay;
  for (let c = 0; c < v.length; c++) {
    let known = 0;
    for (let d = 0; d < k.length; d++) known += state[d * v.length + c] * k[d];
    const update = beta * (v[c] - known);
    for (let d = 0; d < k.length; d++) state[d * v.length + c] += k[d] * update;
  }
}

/** o = Sᵀ q. */
export function readState(state: Float64Array, q: ArrayLike<number>): Float64Array {
  const width = state.length / q.length;
  const output = new Float64Array(width);
  for (let d = 0; d < q.length; d++) {
    for (let c = 0; c < width; c++) output[c] += state[d * width + c] * q[d];
  }
  return output;
}
