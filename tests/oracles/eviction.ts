// What happens to the slots of a KV head while tokens are generated, on plain lists and in f64: no ring, no sums.

/** Attention that the row of a position paid to a slot's token. */
export interface Seen {
  readonly row: number;
  readonly p: number;
}

/** The slots of a KV head, or of several that share them. */
export interface HeadCache {
  readonly capacity: number;
  /** Position of the token in each slot in use; undefined when it was evicted. */
  readonly positions: (number | undefined)[];
  /** Score of each of the `capacity` slots. */
  readonly scores: number[];
  /** Attention that each of the `capacity` slots got since it was written. */
  readonly seen: Seen[][];
  /** Slot of the newest token; where a token found no room, the capacity. */
  start: number;
  /** Free slots among those in use, the one that was freed first in front. */
  readonly freed: number[];
  /** How many freed slots were used again, modulo the capacity, from some number on. */
  freeFirst: number;
  /** Tokens before this position may be evicted under the limit of that name. */
  frozen: number;
}

/** How a sequence's generated tokens are numbered and compressed. */
export interface Turn {
  readonly origin: number;
  readonly block: number;
}

/** A copy to change. */
export function copyOf(cache: HeadCache): HeadCache {
  const { positions, scores, seen, freed } = cache;
  return {
    ...cache,
    positions: [...positions],
    scores: [...scores],
    seen: seen.map((each) => [...each]),
    freed: [...freed],
  };
}

/** Gives the token of a position a slot: the one freed first when more than `delay` are free, else a new one. */
export function append(cache: HeadCache, position: number, delay: number): void {
  if (cache.freed.length > delay && position >= cache.frozen) {
    cache.start = cache.freed.shift()!;
    cache.freeFirst = (cache.freeFirst + 1) % cache.capacity;
    cache.positions[cache.start] = position;
    return;
  }
  cache.start = cache.positions.length;
  if (cache.start < cache.capacity) cache.positions.push(position);
}

/** Mean over heads of softmax weights, from logits by head and slot and the heads' log of the sum of exp. */
export function meanWeight(
  logits: readonly ArrayLike<number>[],
  logSumExps: readonly number[],
  slot: number,
): number {
  return logits.reduce((sum, head, i) => sum + Math.exp(head[slot] - logSumExps[i]), 0) / logits.length;
}

/** Takes in the attention `weight(slot)` that the row of a position paid to the slots. */
export function observe(
  cache: HeadCache,
  mode: "sum" | "last" | "block",
  row: number,
  weight: (slot: number) => number,
): void {
  cache.positions.forEach((position, slot) => {
    if (mode === "block") {
      if (slot === cache.start) {
        cache.seen[slot] = [];
        // More than any score, until its block is compressed.
        cache.scores[slot] = 3.0e38;
      } else if (position !== undefined && position <= row) cache.seen[slot].push({ row, p: weight(slot) });
    } else if (position !== undefined && position <= row) {
      const before = mode === "sum" && slot !== cache.start ? cache.scores[slot] : 0;
      cache.scores[slot] = before + weight(slot);
    }
  });
}

/** Sums of attention from rows of later blocks than the slot's, plain and times the rows' numbers. */
export function blockSums(cache: HeadCache, slot: number, { origin, block }: Turn): [number, number] {
  const position = cache.positions[slot];
  const later = cache.seen[slot].filter(({ row }) =>
    position === undefined ||
    (position >= origin && Math.floor((position - origin) / block) < Math.floor((row - origin) / block))
  );
  return [
    later.reduce((sum, { p }) => sum + p, 0),
    later.reduce((sum, { row, p }) => sum + (row - origin) * p, 0),
  ];
}

function free(cache: HeadCache, slot: number): void {
  cache.positions[slot] = undefined;
  cache.freed.push(slot);
}

interface Candidate {
  readonly slot: number;
  readonly position: number;
  readonly score: number;
}

/** Throws where a choice hangs on a difference that f32 may not show. */
function clear(a: Candidate | undefined, b: Candidate | undefined, margin: number): void {
  const gap = a && b ? Math.abs(a.score - b.score) : 0;
  if (gap > 0 && gap < margin * Math.abs(a!.score)) {
    throw new Error(`Scores are too close to tell: ${gap} apart`);
  }
}

/** Settings of {@linkcode compress}. */
export interface CompressOptions extends Turn {
  /** Position of the newest row, and how many newest tokens are protected. */
  readonly row: number;
  readonly window: number;
  readonly keep: number;
  readonly distanceWeight: number;
  /** Least relative difference of scores that a choice may hang on. Default: 0. */
  readonly margin?: number;
}

/** Keeps the best tokens of the block before the window and frees the slots of the others. */
export function compress(cache: HeadCache, options: CompressOptions): void {
  const { block, row, window, keep, distanceWeight, margin = 0 } = options;
  const end = row + 1 - window;
  const candidates = cache.positions.flatMap((position, slot): Candidate[] => {
    if (position === undefined || position < end - block || position >= end) return [];
    // Weights of the protected rows rise evenly from 1 to the last one's.
    const weighted = cache.seen[slot].filter((seen) => seen.row >= end).map((seen) =>
      (window > 1 ? 1 + (distanceWeight - 1) * (seen.row - end) / (window - 1) : 1) * seen.p
    );
    return [{ slot, position, score: weighted.reduce((sum, value) => sum + value, 0) / window }];
  });
  candidates.sort((a, b) => b.score - a.score || a.position - b.position);
  clear(candidates[keep - 1], candidates[keep], margin);
  for (const { slot, score } of candidates.slice(0, keep)) cache.scores[slot] = score;
  candidates.slice(keep).sort((a, b) => a.position - b.position).forEach(({ slot }) => free(cache, slot));
  cache.frozen = end;
}

/** Settings of {@linkcode evict}. */
export interface EvictOptions {
  readonly sinks: number;
  /** First position that may not go. */
  readonly limit: number;
  readonly delay: number;
  /** Whether the oldest goes, whatever its score. */
  readonly byPosition?: boolean;
  /** Least relative difference of scores that a choice may hang on. Default: 0. */
  readonly margin?: number;
}

/** Frees the slot of the token with the lowest score (NaN is lowest) when at most `delay` slots are left. */
export function evict(cache: HeadCache, options: EvictOptions): void {
  const { sinks, limit, delay, byPosition = false, margin = 0 } = options;
  if (cache.capacity - cache.positions.length + cache.freed.length > delay) return;
  const candidates = cache.positions.flatMap((position, slot): Candidate[] => {
    if (position === undefined || position < sinks || position >= limit) return [];
    const score = byPosition ? 0 : cache.scores[slot];
    return [{ slot, position, score: Number.isNaN(score) ? -Infinity : score }];
  });
  candidates.sort((a, b) => a.score < b.score ? -1 : a.score > b.score ? 1 : a.position - b.position);
  clear(candidates[0], candidates[1], margin);
  if (candidates.length > 0) free(cache, candidates[0].slot);
}
