// Attention that keys get, from its definition in PyramidInfer (arXiv:2405.12532), in f64: one query and one key at a
// time, no tiles, no groups.

import { score, type Slot } from "./attention.ts";

/** A row whose queries score, as the oracle sees it. */
export interface ScoringRow {
  readonly position: number;
  /** Its query in each query head that shares the keys, and the log of the sum of exp over all that it sees. */
  readonly queries: readonly { readonly query: Float64Array; readonly logSumExp: number }[];
}

/** Log of the sum of exp(score) over the slots that a query sees; -Infinity when there is none. */
export function logSumExp(
  query: Float64Array,
  position: number,
  slots: readonly Slot[],
  scale: number,
): number {
  const scores = slots.filter((slot) => slot.position <= position).map(({ key }) => score(query, key, scale));
  let maximum = -Infinity;
  for (const value of scores) maximum = Math.max(maximum, value);
  if (maximum === -Infinity) return maximum;
  let sum = 0;
  for (const value of scores) sum += Math.exp(value - maximum);
  return maximum + Math.log(sum);
}

/** Weight of scoring row `index` of `count`, oldest first: from 1 to `distanceWeight`. */
export function rowWeight(index: number, count: number, distanceWeight: number): number {
  return count === 1 ? 1 : 1 + (distanceWeight - 1) * index / (count - 1);
}

/**
 * Attention that one key gets from the scoring rows (oldest first): weighted sum over rows and their queries, divided by
 * the number of rows and of all query heads of the model.
 */
export function columnScore(
  column: Slot,
  rows: readonly ScoringRow[],
  heads: number,
  scale: number,
  distanceWeight: number,
): number {
  let sum = 0;
  rows.forEach(({ position, queries }, i) => {
    if (column.position > position) return;
    const weight = rowWeight(i, rows.length, distanceWeight);
    for (const { query, logSumExp } of queries) {
      sum += weight * Math.exp(score(query, column.key, scale) - logSumExp);
    }
  });
  return sum / (rows.length * heads);
}
