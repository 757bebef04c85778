// Gated linear attention from its definition, in f64: one row after the other. readState() of delta_rule.ts reads the state.

/** One row of one KV head. */
export interface GatedRow {
  /** Key [keySize]. */
  readonly k: ArrayLike<number>;
  /** Value [valueSize]. */
  readonly v: ArrayLike<number>;
  /** Natural logs of the decays [keySize]. */
  readonly logDecay: ArrayLike<number>;
}

/** S = diag(exp(g)) S + k vᵀ, in place; `state` is [keySize][valueSize]. */
export function gatedStep(state: Float64Array, { k, v, logDecay }: GatedRow): void {
  for (let d = 0; d < k.length; d++) {
    const decay = Math.exp(logDecay[d]);
    for (let c = 0; c < v.length; c++) {
      state[d * v.length + c] = decay * state[d * v.length + c] + k[d] * v[c];
    }
  }
}
