// Selection of rows by its definition: sort, cut. What the kernels find by radix is sorted here.

/** What is kept of a sequence's rows. */
export interface OracleSelection {
  readonly count: number;
  readonly window: number;
  readonly sinks: number;
  readonly keep: number;
}

/** Number of rows before the window. */
export function oracleContext({ count, window }: OracleSelection): number {
  return Math.max(0, count - window);
}

/** Larger first; NaN last of all. */
function compareScores(a: number, b: number): number {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return a === b ? 0 : a > b ? -1 : 1;
}

/** Context rows, best first: the sinks in order, then by score, ties to the lower row. */
export function oracleRanking(scores: ArrayLike<number>, selection: OracleSelection): number[] {
  const context = oracleContext(selection);
  const isSink = (j: number): boolean => j < selection.sinks;
  return Array.from({ length: context }, (_, j) => j).sort((a, b) => {
    if (isSink(a) !== isSink(b)) return isSink(a) ? -1 : 1;
    if (isSink(a)) return a - b;
    return compareScores(scores[a], scores[b]) || a - b;
  });
}

/** Rows that are kept, ascending. */
export function oracleSelect(scores: ArrayLike<number>, selection: OracleSelection): number[] {
  const context = oracleContext(selection);
  const kept = oracleRanking(scores, selection).slice(0, selection.keep).sort((a, b) => a - b);
  for (let j = context; j < selection.count; j++) kept.push(j);
  return kept;
}

/** Rows that each head keeps of a budget for all, given each head's scores. */
export function oracleSpread(
  scores: readonly ArrayLike<number>[],
  selection: OracleSelection,
  share: number,
): number[] {
  const keep = Math.min(selection.keep, oracleContext(selection));
  const floor = Math.floor(Math.fround(Math.fround(share) * keep));
  const sinks = Math.min(selection.sinks, keep);
  const kept = scores.map(() => 0);
  const left: { head: number; row: number; score: number }[] = [];
  scores.forEach((own, head) => {
    oracleRanking(own, selection).forEach((row, rank) => {
      if (rank < floor) kept[head]++;
      else left.push({ head, row, score: row < sinks ? Infinity : own[row] });
    });
  });
  left.sort((a, b) => compareScores(a.score, b.score) || a.head - b.head || a.row - b.row);
  for (const { head } of left.slice(0, scores.length * (keep - floor))) kept[head]++;
  return kept;
}

/** Pooled scores of one context. */
export function oraclePool(
  scores: Float64Array,
  pool: "none" | "mean" | "max",
  width: number,
): Float64Array {
  const half = pool === "none" ? 0 : (width - 1) / 2;
  return scores.map((_, j) => {
    const near = scores.subarray(Math.max(0, j - half), j + half + 1);
    if (pool === "max") return Math.max(...near);
    const sum = near.reduce((a, b) => a + b, 0);
    return pool === "mean" ? sum / width : sum;
  });
}
