// Top-p over keys by its definition: sort, add up, stop.

/** A choice of the fewest tokens whose scores are a share of all. */
export interface OracleNucleus {
  /** Which stay, ascending. */
  readonly kept: number[];
  /** How near the share was to be reached one token earlier or later, of the whole: 0 is a tie. */
  readonly gap: number;
  /** Distance of the scores on both sides of the cut, of the whole. */
  readonly cut: number;
}

/** What is kept in any case, and what limits the choice. */
export interface NucleusLimits {
  readonly share: number;
  /** First of the tokens, which stay before all others. */
  readonly sinks: number;
  /** Fewest that stay. */
  readonly least: number;
  /** Most that stay, the sinks aside. */
  readonly most: number;
}

/** Chooses among scores, of equal ones the first. */
export function nucleusOracle(scores: ArrayLike<number>, limits: NucleusLimits): OracleNucleus {
  const { share, least, most } = limits;
  const all = Array.from(scores);
  const sinks = Math.min(limits.sinks, all.length);
  const ranked = all.map((_, j) => j).sort((a, b) =>
    Number(b < sinks) - Number(a < sinks) || (a < sinks ? a - b : all[b] - all[a] || a - b)
  );
  const wanted = share * all.reduce((sum, score) => sum + score, 0);
  let gap = Infinity;
  let count = sinks;
  let sum = all.slice(0, sinks).reduce((before, score) => before + score, 0);
  if (share >= 1) count = all.length;
  else {
    gap = Math.abs(sum - wanted);
    while (sum < wanted && count < all.length) {
      sum += all[ranked[count++]];
      gap = Math.min(gap, Math.abs(sum - wanted));
    }
  }
  const limited = Math.max(Math.min(Math.max(count, Math.min(least, all.length)), most), sinks);
  if (limited !== count) gap = Infinity;
  const cut = limited < all.length && limited > sinks
    ? Math.abs(all[ranked[limited - 1]] - all[ranked[limited]])
    : Infinity;
  const whole = wanted > 0 ? wanted / share : 1;
  return { kept: ranked.slice(0, limited).sort((a, b) => a - b), gap: gap / whole, cut: cut / whole };
}
