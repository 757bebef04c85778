// Naive f64 references of the attention in TransNormer and TransNormerLLM, over all pairs of tokens. Rows are arrays of
// heads side by side.

import { activationOracle, normRowsOracle } from "./linear.ts";

/** Rows of numbers. */
export type Rows = readonly Float64Array[];

/** Rotates the features of a head; the result may be longer. */
export type RotateHead = (head: Float64Array, position: number, index: number) => Float64Array;

/** Feature maps by the names that configs give them. */
export const FEATURES: Readonly<Record<string, (x: number) => number>> = {
  elu: (x) => x > 0 ? x : Math.expm1(x),
  "1+elu": (x) => x > 0 ? 1 + x : Math.exp(x),
  "2+elu": (x) => x > 0 ? 2 + x : 1 + Math.exp(x),
  relu: (x) => Math.max(x, 0),
  leak: (x) => x > 0 ? x : 0.01 * x,
  silu: (x) => activationOracle("silu", x),
  swish: (x) => activationOracle("silu", x),
  sine: Math.sin,
  none: (x) => x,
};

/** Pairs (2i, 2i + 1), or (i, i + size / 2), by angle i times the position. */
export function rotatePairs(layout: "interleaved" | "half", thetas: ArrayLike<number>): RotateHead {
  return (head, position) => {
    const out = new Float64Array(head.length);
    for (let i = 0; i < head.length / 2; i++) {
      const [a, b] = layout === "half" ? [i, i + head.length / 2] : [2 * i, 2 * i + 1];
      const [cos, sin] = [Math.cos(position * thetas[i]), Math.sin(position * thetas[i])];
      out[a] = head[a] * cos - head[b] * sin;
      out[b] = head[b] * cos + head[a] * sin;
    }
    return out;
  };
}

/** [x cos | x sin], with an angle for each component of each head. */
export function rotateConcat(thetas: ArrayLike<number>): RotateHead {
  return (head, position, index) => {
    const angle = (i: number) => position * thetas[index * head.length + i];
    return Float64Array.of(
      ...head.map((x, i) => x * Math.cos(angle(i))),
      ...head.map((x, i) => x * Math.sin(angle(i))),
    );
  };
}

/** x - 2 (x · v) v, and then a rotation. */
export function reflectFirst(v: Float64Array, rotate: RotateHead): RotateHead {
  return (head, position, index) => {
    const dot = 2 * head.reduce((sum, x, i) => sum + x * v[i], 0);
    return rotate(head.map((x, i) => x - dot * v[i]), position, index);
  };
}

/** What the sums over tokens take. */
export interface AttentionOracle {
  readonly heads: number;
  /** Default: as many as heads. */
  readonly kvHeads?: number;
  readonly causal: boolean;
  /** Feature map. Default: none. */
  readonly map?: (x: number) => number;
  readonly rotate?: RotateHead;
  /** Whether a token is no key. Default: none of them. */
  readonly pads?: readonly boolean[];
}

/** Features by token and head. */
function featuresOf(
  rows: Rows,
  heads: number,
  { map = (x) => x, rotate = (head) => head }: AttentionOracle,
  position: (row: number) => number,
): Float64Array[][] {
  return rows.map((row, t) =>
    Array.from({ length: heads }, (_, h) => {
      const size = row.length / heads;
      return rotate(row.slice(h * size, (h + 1) * size).map(map), position(t), h);
    })
  );
}

const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, x, i) => sum + x * b[i], 0);

/** Rows of Σ over keys of weight · value, where `weigh` makes weights of the scores of the keys that a row sees. */
function attend(
  { q, k, v }: { q: Rows; k: Rows; v: Rows },
  spec: AttentionOracle,
  sees: (row: number, key: number) => boolean,
  weigh: (scores: number[], keys: number[], row: number, head: number) => number[],
  position: (row: number) => number = (row) => row,
): Float64Array[] {
  const { heads, kvHeads = heads, causal, pads = [] } = spec;
  const size = v[0].length / kvHeads;
  const [queries, keys] = [featuresOf(q, heads, spec, position), featuresOf(k, kvHeads, spec, position)];
  return q.map((_, row) => {
    const seen = [...k.keys()].filter((key) => (!causal || key <= row) && !pads[key] && sees(row, key));
    const out = new Float64Array(heads * size);
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor(head * kvHeads / heads);
      const weights = weigh(seen.map((key) => dot(queries[row][head], keys[key][kv])), seen, row, head);
      seen.forEach((key, i) => {
        for (let c = 0; c < size; c++) out[head * size + c] += weights[i] * v[key][kv * size + c];
      });
    }
    return out;
  });
}

/** Σ λ^(t - s) (q · k) v; λ by query head. Default: 1. */
export function linearSums(
  qkv: { q: Rows; k: Rows; v: Rows },
  spec: AttentionOracle,
  decays?: readonly number[],
): Float64Array[] {
  return attend(
    qkv,
    spec,
    () => true,
    (scores, keys, row, head) =>
      scores.map((score, i) => decays ? score * decays[head] ** (row - keys[i]) : score),
  );
}

/** Σ (q · k) v over Σ (q' · k'), whose features may not be rotated. */
export function linearAttentionOracle(
  qkv: { q: Rows; k: Rows; v: Rows },
  spec: AttentionOracle,
  { rotatedDenominator, epsilon }: { rotatedDenominator: boolean; epsilon: number },
): Float64Array[] {
  const numerators = linearSums(qkv, spec);
  const { rotate: _, ...plain } = spec;
  // With values of 1 the sums are the denominators.
  const ones = { ...qkv, v: qkv.v.map((row) => row.map(() => 1)) };
  const denominators = linearSums(ones, rotatedDenominator ? spec : plain);
  return numerators.map((row, t) => row.map((x, i) => x / (denominators[t][i] + epsilon)));
}

/** Attention inside of blocks, where positions begin anew. */
export function diagAttentionOracle(
  qkv: { q: Rows; k: Rows; v: Rows },
  spec: AttentionOracle,
  { block, score, scale }: { block: number; score: "softmax" | "relu"; scale: number },
): Float64Array[] {
  const blockOf = (row: number) => Math.floor(row / block);
  return attend(
    qkv,
    spec,
    (row, key) => blockOf(row) === blockOf(key),
    (scores) => {
      if (score === "relu") return scores.map((x) => Math.max(scale * x, 0));
      return softmax(scores.map((x) => scale * x));
    },
    (row) => row % block,
  );
}

/** Softmax attention over everything that a row sees. */
export function softmaxAttentionOracle(
  qkv: { q: Rows; k: Rows; v: Rows },
  spec: AttentionOracle,
): Float64Array[] {
  const scale = 1 / Math.sqrt(qkv.q[0].length / spec.heads);
  return attend(qkv, spec, () => true, (scores) => softmax(scores.map((x) => scale * x)));
}

function softmax(scores: readonly number[]): number[] {
  const largest = Math.max(...scores);
  const exps = scores.map((x) => Math.exp(x - largest));
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((x) => x / sum);
}

/** Norm of each row, or of each of its groups. */
export function normedRows(
  rows: Rows,
  options: Omit<Parameters<typeof normRowsOracle>[1], "rows" | "width">,
): Float64Array[] {
  return rows.map((row) => normRowsOracle(row, { ...options, rows: 1, width: row.length }));
}

/** ALiBi's slopes: powers of 2^(-8 / H), then every second power of 2^(-4 / N), N the power of two below H. */
export function slopesOracle(heads: number): number[] {
  const log = Math.log2(heads);
  if (Number.isInteger(log)) return Array.from({ length: heads }, (_, h) => 2 ** (-8 * (h + 1) / heads));
  const below = 2 ** Math.floor(log);
  return [...slopesOracle(below), ...slopesOracle(2 * below).filter((_, h) => h % 2 === 0)].slice(0, heads);
}
