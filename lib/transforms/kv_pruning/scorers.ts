// What keys are scored by.

import { ops } from "../../layers/mod.ts";
import type { Scorer } from "./policy.ts";

/**
 * Scores keys by the attention that the newest rows pay them, as a mean over rows and heads; the newest row counts
 * `distanceWeight` times as much as the oldest. With `groupMeans` each KV head's score is the mean over its own query
 * heads, as the scores of decode are; otherwise its part of the mean over all of them.
 */
export function windowAttention(distanceWeight = 1, groupMeans = false): Scorer {
  return (trace, { queries, logSumExps, store, scale, selection }) =>
    ops.columnScores(trace, queries, logSumExps, { store, scale, selection, distanceWeight, groupMeans });
}

/** How the scores of neighbouring keys are put together. */
export type Pooling = "mean" | "max";

/**
 * Scores keys by the attention that the newest rows pay them, then by that of `width` neighbours together: their largest,
 * or their mean, where absent neighbours count 0 (SnapKV, arXiv:2404.14469).
 */
export function pooledAttention(pool: Pooling, width: number): Scorer {
  const score = windowAttention();
  return (trace, input) =>
    ops.poolScores(trace, score(trace, input), { heads: "each", pool, width, selection: input.selection });
}

/**
 * Scores keys by the attention that all scored rows pay them, summed over rows: the mean of each KV head's query heads, or
 * of all heads. Decode adds to it (H2O, arXiv:2306.14048).
 */
export function attentionSums(perKvHead: boolean): Scorer {
  const sums = perKvHead ? "group" : "heads";
  return (trace, { queries, logSumExps, store, scale, selection }) =>
    ops.columnScores(trace, queries, logSumExps, { store, scale, selection, distanceWeight: 1, sums });
}

/** Scores keys by their negative length (Devoto et al., arXiv:2406.11430). */
export function keyNorms(): Scorer {
  return (trace, { queries, store, selection }) =>
    ops.keyScores(trace, queries, { store, selection, score: "norm" });
}

/** Scores keys by how far they point away from the mean direction of all (KeyDiff, arXiv:2504.15364). */
export function keyDifferences(): Scorer {
  return (trace, { queries, store, selection }) =>
    ops.keyScores(trace, queries, { store, selection, score: "difference" });
}

/** Scores positions by a hash of them, others in every layer and head. */
export function hashedPositions(layer: number, seed: number): Scorer {
  return (trace, { queries, store, selection }) =>
    ops.randomScores(trace, queries, { kvHeads: store.kvHeads, selection, layer, seed });
}
