// Block-diagonal attention from its definition, in f64.

/** A row: its original position, its heads side by side, and whether it is padding. */
export interface DiagRow {
  readonly position: number;
  readonly q: ArrayLike<number>;
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
  readonly pad?: boolean;
}

/** What the attention is like. */
export interface DiagOptions {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly block: number;
  readonly score: "softmax" | "relu";
  readonly scale: number;
  readonly causal: boolean;
}

/** Output of every row of one sequence: [rows, heads · headSize]. */
export function diagAttention(rows: readonly DiagRow[], options: DiagOptions): Float64Array {
  const { heads, kvHeads, headSize, block, score, scale, causal } = options;
  const out = new Float64Array(rows.length * heads * headSize);
  rows.forEach(({ position, q }, i) => {
    const keys = rows.filter((key) =>
      !key.pad && Math.floor(key.position / block) === Math.floor(position / block) &&
      (!causal || key.position <= position)
    );
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head * kvHeads / heads);
      const scores = keys.map(({ k }) => {
        let sum = 0;
        for (let d = 0; d < headSize; d++) sum += q[head * headSize + d] * k[kvHead * headSize + d];
        return scale * sum;
      });
      const largest = Math.max(...scores);
      const weights = scores.map((s) => score === "relu" ? Math.max(s, 0) : Math.exp(s - largest));
      const total = score === "relu" ? 1 : weights.reduce((a, b) => a + b, 0);
      keys.forEach(({ v }, j) => {
        for (let d = 0; d < headSize; d++) {
          out[(i * heads + head) * headSize + d] += weights[j] / total * v[kvHead * headSize + d];
        }
      });
    }
  });
  return out;
}
