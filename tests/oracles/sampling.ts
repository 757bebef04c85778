// Sampling by its definition, in f64: sort, cut, draw. What the kernels find by selection is sorted here.

/** Settings of a draw, as the kernel's table has them (f32 values). */
export interface OracleSettings {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 0 is off. */
  readonly topK: number;
  /** 1 is off. */
  readonly topP: number;
  /** 0 is off. */
  readonly minP: number;
  /** 1 is off. */
  readonly repetitionPenalty: number;
  /** 0 is off. */
  readonly frequencyPenalty: number;
  /** 0 is off. */
  readonly presencePenalty: number;
}

/** Logits with NaN as -infinity. */
export function oracleLogits(logits: ArrayLike<number>): Float64Array {
  return Float64Array.from(logits, (z) => Number.isNaN(z) ? -Infinity : z);
}

/** Logits after bias and penalties; bit 31 of a count: in the prompt, the rest: times generated. */
export function oracleEdits(
  logits: Float64Array,
  bias: ArrayLike<number>,
  counts: Uint32Array,
  settings: OracleSettings,
): Float64Array {
  return logits.map((logit, i) => {
    let z = logit + bias[i];
    const generated = counts[i] & 0x7fffffff;
    const inPrompt = counts[i] >= 2 ** 31;
    if (generated > 0 || inPrompt) {
      if (z > 0) z /= settings.repetitionPenalty;
      else z *= settings.repetitionPenalty;
    }
    z -= settings.frequencyPenalty * generated;
    if (generated > 0) z -= settings.presencePenalty;
    return z;
  });
}

/** Token ids, largest logit first, ties by the lower id. */
export function oracleOrder(z: Float64Array): Uint32Array {
  return Uint32Array.from(z, (_, i) => i).sort((a, b) => z[a] === z[b] ? a - b : z[a] > z[b] ? -1 : 1);
}

/** The logits' distances from the largest, by temperature; all 0 when all are -infinity. */
export function oracleScaled(z: Float64Array, temperature: number): Float64Array {
  const largest = z.reduce((a, b) => Math.max(a, b), -Infinity);
  return z.map((value) => value === largest ? 0 : (value - largest) / temperature);
}

/** How many tokens, from the first in order, are kept. */
export interface KeptCount {
  /** At the least, when everything is rounded to the fewest. */
  readonly least: number;
  /** At the most. Equal to `least` but for a border within the rounding of f32. */
  readonly most: number;
}

/**
 * Sizes of the kept set after top-k, top-p and min-p. `rounding` is the relative error allowed in a probability.
 */
export function oracleKept(
  scaled: Float64Array,
  order: Uint32Array,
  settings: OracleSettings,
  rounding = 2e-6,
): KeptCount {
  const { topK, topP, minP } = settings;
  const first = order.subarray(0, topK > 0 ? Math.min(topK, order.length) : order.length);
  const weights = Float64Array.from(first, (id) => Math.exp(scaled[id]));
  const total = weights.reduceRight((a, b) => a + b, 0);
  const nucleus = (share: number): number => {
    if (topP >= 1) return first.length;
    let sum = 0;
    for (let n = 0; n < first.length; n++) {
      sum += weights[n];
      if (sum >= share * total) return n + 1;
    }
    return first.length;
  };
  const likely = (floor: number): number => {
    if (minP <= 0) return first.length;
    let n = 0;
    while (n < first.length && (scaled[first[n]] === 0 || weights[n] >= floor)) n++;
    return n;
  };
  return {
    least: Math.min(nucleus(topP * (1 - rounding)), likely(minP * (1 + rounding))),
    most: Math.min(nucleus(topP * (1 + rounding)), likely(minP * (1 - rounding))),
  };
}

/** The hash pcg4d of Jarzynski and Olano (JCGT 9(3), 2020). */
export function oraclePcg4d(counter: readonly number[]): number[] {
  const v = counter.map((word) => (Math.imul(word, 1664525) + 1013904223) | 0);
  const round = (): void => {
    for (const [to, a, b] of [[0, 1, 3], [1, 2, 0], [2, 0, 1], [3, 1, 2]]) {
      v[to] = (v[to] + Math.imul(v[a], v[b])) | 0;
    }
  };
  round();
  for (let i = 0; i < 4; i++) v[i] ^= v[i] >>> 16;
  round();
  return v.map((word) => word >>> 0);
}

/** Seed and position of a draw. */
export interface OracleSeed {
  /** Low word of the seed. */
  readonly seedLow: number;
  /** High word of the seed. */
  readonly seedHigh: number;
  /** Position that the drawn token takes. */
  readonly position: number;
}

/** Gumbel noise of a token. */
export function oracleGumbel(seed: OracleSeed, id: number): number {
  const h = oraclePcg4d([seed.seedLow, seed.seedHigh, seed.position, id])[3];
  const v = (h + 0.5) / 2 ** 32;
  return -Math.log(-Math.log1p(-v));
}

/** Score of a token in the draw: the largest among the kept tokens wins. */
export function oracleScore(scaled: Float64Array, seed: OracleSeed, id: number): number {
  return scaled[id] + oracleGumbel(seed, id);
}

/** The winner among `ids`, and its lead over the second. */
export function oracleDraw(
  scaled: Float64Array,
  seed: OracleSeed,
  ids: Uint32Array,
): { token: number; score: number; lead: number } {
  let token = -1, score = -Infinity, second = -Infinity;
  for (const id of ids) {
    const own = oracleScore(scaled, seed, id);
    if (own > score || (own === score && id < token)) {
      second = score;
      token = id, score = own;
    } else if (own > second) second = own;
  }
  return { token, score, lead: score - second };
}

/** log(sum(exp(z))) in f64, summed from the smallest term. */
export function oracleLogSumExp(z: Float64Array): number {
  const sorted = Float64Array.from(z).sort();
  const largest = sorted[sorted.length - 1];
  let sum = 0;
  for (const value of sorted) sum += Math.exp(value - largest);
  return largest + Math.log(sum);
}
