// What a cache keeps of a step by its definition: lists of slots, no flat indexes.

/** A head's slots. */
export interface OracleExtent {
  readonly base: number;
  readonly capacity: number;
  readonly start: number;
  readonly length: number;
  readonly positions: number;
}

/** What is kept of a sequence's rows. */
export interface OracleKept {
  readonly count: number;
  readonly window: number;
  readonly keep: number;
}

/** Number of rows that are kept: those before the window up to `keep`, and the window. */
export function oracleKeptRows({ count, window, keep }: OracleKept): number {
  let kept = 0;
  for (let row = 0; row < count; row++) {
    if (row >= count - window || kept < keep) kept++;
  }
  return kept;
}

/** A sequence's extents after so many rows of each head were appended. */
export function oracleAppend(extents: readonly OracleExtent[], rows: readonly number[]): OracleExtent[] {
  return extents.map((extent, head) => {
    let { length } = extent;
    for (let row = 0; row < rows[head] && length < extent.capacity; row++) length++;
    return { ...extent, start: extent.length, length };
  });
}

/** The empty extents of a sequence dealt out anew: each head gets `rows[head]` and all get the same room besides. */
export function oracleDealOut(
  extents: readonly OracleExtent[],
  rows: readonly number[],
  usual: number,
): OracleExtent[] {
  if (extents.some(({ length }) => length > 0)) return [...extents];
  const [{ base, positions, capacity }] = extents;
  let left = capacity * extents.length;
  return extents.map((extent, head) => {
    const used = capacity * extents.length - left;
    const own = Math.min(left, rows[head] + Math.max(0, capacity - usual));
    left -= own;
    return { ...extent, base: base + used, positions: positions + used, capacity: own };
  });
}

/** Slot of the cache, and staged slot that it is copied from, for every row that is kept: `map` has their numbers. */
export function oracleMoves(
  extent: OracleExtent,
  staged: OracleExtent,
  map: readonly number[],
): { readonly to: number; readonly origin: number; readonly row: number }[] {
  const room = extent.length - extent.start;
  return map.slice(0, room).map((row, i) => ({ to: extent.start + i, origin: staged.start + row, row }));
}
