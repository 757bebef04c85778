// From which length on one way is faster than another.

/** Times of two ways at one length. */
export interface Comparison {
  /** Length. */
  readonly length: number;
  /** Time of the one that is asked about. */
  readonly ours: number;
  /** Time of the other. */
  readonly theirs: number;
}

/**
 * Length from which on ours stays the faster one, interpolated where the ratio of times crosses 1, with logarithms on both
 * axes: 0 when it is faster everywhere, Infinity when it is not at the longest, NaN without any times.
 */
export function crossover(points: readonly Comparison[]): number {
  if (points.length === 0) return NaN;
  const sorted = [...points].sort((a, b) => a.length - b.length);
  const last = sorted.findLastIndex(({ ours, theirs }) => ours >= theirs);
  if (last < 0) return 0;
  if (last === sorted.length - 1) return Infinity;
  const [from, to] = [sorted[last], sorted[last + 1]];
  const [over, under] = [from, to].map(({ ours, theirs }) => Math.log(ours / theirs));
  const share = over / (over - under);
  return Math.exp(Math.log(from.length) + share * Math.log(to.length / from.length));
}

/** A crossover in words. */
export function crossoverText(points: readonly Comparison[]): string {
  const at = crossover(points);
  const lengths = points.map(({ length }) => length);
  if (Number.isNaN(at)) return "not measured";
  if (at === 0) return `faster from ${Math.min(...lengths)} tokens on, the shortest measured`;
  if (at === Infinity) return `not faster at ${Math.max(...lengths)} tokens, the longest measured`;
  return `faster from about ${Math.round(at)} tokens on`;
}
