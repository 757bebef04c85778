// Window softmax and linear attention in one normaliser from the definition, in f64.

/** A row: its original position, and its heads side by side. */
export interface HybridRow {
  readonly position: number;
  readonly q: ArrayLike<number>;
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
  readonly qFeatures: ArrayLike<number>;
  readonly kFeatures: ArrayLike<number>;
}

/** What the attention is like. */
export interface HybridOptions {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly featureSize: number;
  readonly window: number;
  readonly scale: number;
  readonly gate: number;
}

function product(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  at: readonly [number, number],
  n: number,
): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[at[0] * n + i] * b[at[1] * n + i];
  return sum;
}

/** Output of every row of one sequence: [rows, heads · headSize]. */
export function hybridAttention(rows: readonly HybridRow[], options: HybridOptions): Float64Array {
  const { heads, kvHeads, headSize, featureSize, window, scale, gate } = options;
  const out = new Float64Array(rows.length * heads * headSize);
  rows.forEach((row, i) => {
    const seen = rows.filter(({ position }) => position <= row.position);
    const inside = (key: HybridRow): boolean => key.position > row.position - window;
    for (let head = 0; head < heads; head++) {
      const at = [head, Math.floor(head * kvHeads / heads)] as const;
      const largest = Math.max(
        ...seen.filter(inside).map(({ k }) => scale * product(row.q, k, at, headSize)),
      );
      const weights = seen.map((key) =>
        inside(key)
          ? gate * Math.exp(scale * product(row.q, key.k, at, headSize) - largest)
          : product(row.qFeatures, key.kFeatures, at, featureSize)
      );
      const total = weights.reduce((a, b) => a + b);
      seen.forEach(({ v }, j) => {
        for (let d = 0; d < headSize; d++) {
          out[(i * heads + head) * headSize + d] += weights[j] / total * v[at[1] * headSize + d];
        }
      });
    }
  });
  return out;
}
