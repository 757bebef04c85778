// Linear attention by its quadratic definition, its denominator and its features, in f64.

/** A row: its sequence and its original position there. */
export interface OracleRow {
  readonly sequence: number;
  readonly position: number;
}

/** What {@linkcode linearAttentionOracle} takes; matrices are row-major, heads side by side. */
export interface LinearAttentionCase {
  readonly rows: readonly OracleRow[];
  readonly q: ArrayLike<number>;
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
  readonly heads: number;
  readonly kvHeads: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly causal: boolean;
  /** Log decay a position by KV head. */
  readonly slopes?: readonly number[];
  /** Log decay from the row before [rows, kvHeads]. */
  readonly logDecay?: ArrayLike<number>;
}

/** o_i = Σ over the rows j of its sequence (j ≤ i, if causal) of decay(i, j) (q_i · k_j) v_j: [rows, heads · valueSize]. */
export function linearAttentionOracle(test: LinearAttentionCase): Float64Array {
  const { rows, q, k, v, heads, kvHeads, keySize, valueSize, causal, slopes, logDecay } = test;
  const out = new Float64Array(rows.length * heads * valueSize);
  for (let h = 0; h < heads; h++) {
    const kv = Math.floor(h / (heads / kvHeads));
    rows.forEach((row, i) => {
      // From late to early, so that logarithms of the rows between add up.
      let between = 0;
      for (let j = causal ? i : rows.length - 1; j >= 0; j--) {
        if (rows[j].sequence !== row.sequence) continue;
        const log = slopes ? slopes[kv] * (row.position - rows[j].position) : between;
        let score = 0;
        for (let d = 0; d < keySize; d++) {
          score += q[(i * heads + h) * keySize + d] * k[(j * kvHeads + kv) * keySize + d];
        }
        for (let e = 0; e < valueSize; e++) {
          out[(i * heads + h) * valueSize + e] += Math.exp(log) * score *
            v[(j * kvHeads + kv) * valueSize + e];
        }
        if (logDecay) between += logDecay[j * kvHeads + kv];
      }
    });
  }
  return out;
}

/** q_i · Σ over the rows j of its sequence (j ≤ i, if causal) of k_j: [rows, heads]. */
export function linearDenominatorOracle(
  test: Pick<LinearAttentionCase, "rows" | "q" | "k" | "heads" | "kvHeads" | "keySize" | "causal">,
): Float64Array {
  const ones = new Float64Array(test.rows.length * test.kvHeads).fill(1);
  return linearAttentionOracle({ ...test, v: ones, valueSize: 1 });
}

function erf(x: number): number {
  // The series up to 3, the continued fraction of erfc beyond.
  if (Math.abs(x) < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 100; n++) {
      term *= -x * x / n;
      sum += term / (2 * n + 1);
    }
    return 2 / Math.sqrt(Math.PI) * sum;
  }
  const z = Math.abs(x);
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}

function softmax(x: readonly number[]): number[] {
  const bound = Math.max(...x);
  const powers = x.map((value) => Math.exp(value - bound));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}

const ELEMENTWISE: Readonly<Record<string, (x: number) => number>> = {
  identity: (x) => x,
  elu: (x) => x > 0 ? x : Math.expm1(x),
  "1+elu": (x) => x > 0 ? 1 + x : Math.exp(x),
  "2+elu": (x) => x > 0 ? 2 + x : 1 + Math.exp(x),
  relu: (x) => Math.max(x, 0),
  "leaky-relu": (x) => x > 0 ? x : 0.01 * x,
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => x * (1 + erf(x / Math.SQRT2)) / 2,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  sine: Math.sin,
  "squared-relu": (x) => Math.max(x, 0) ** 2,
};

/** A feature map of one head. */
export function featureMapOracle(map: string, x: readonly number[]): number[] {
  if (map === "softmax") return softmax(x);
  if (map === "exp") return x.map((value) => Math.exp(value - Math.max(...x)));
  if (map === "hedgehog") return [...softmax(x), ...softmax(x.map((value) => -value))];
  return x.map(ELEMENTWISE[map]);
}

/** Rotation of one head's features; one angle a pair, or a component for `concat`. */
export function rotationOracle(
  layout: "interleaved" | "half" | "concat",
  x: readonly number[],
  thetas: readonly number[],
  position: number,
): number[] {
  if (layout === "concat") {
    return [Math.cos, Math.sin].flatMap((of) => x.map((value, i) => value * of(position * thetas[i])));
  }
  const out = [...x];
  thetas.forEach((theta, pair) => {
    const [a, b] = layout === "half" ? [pair, pair + thetas.length] : [2 * pair, 2 * pair + 1];
    const [c, s] = [Math.cos(position * theta), Math.sin(position * theta)];
    out[a] = x[a] * c - x[b] * s;
    out[b] = x[b] * c + x[a] * s;
  });
  return out;
}
