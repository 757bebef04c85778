// Decays by head and layer, as logarithms a position: exp of them is what a state is multiplied by.

/** ALiBi's slopes (Press et al. 2021): powers of 2^(-8 / H), with every second one of 2H between where H is no power of two. */
export function alibiSlopes(heads: number): number[] {
  const powers = (count: number) => Array.from({ length: count }, (_, h) => 2 ** (-8 * (h + 1) / count));
  const nearest = 2 ** Math.floor(Math.log2(heads));
  const between = powers(2 * nearest).filter((_, h) => h % 2 === 0);
  return [...powers(nearest), ...between.slice(0, heads - nearest)];
}

/**
 * Released TransNormerLLM checkpoints: -slope · (1 - l / (L - 1) + 1e-5). A model of one layer has the factor 1 + 1e-5 of a
 * first layer. The slopes are ALiBi's unless others are given, one a head.
 */
export function alibiDecays(
  heads: number,
  layer: number,
  layers: number,
  slopes: readonly number[] = alibiSlopes(heads),
): number[] {
  const factor = 1 - (layers > 1 ? layer / (layers - 1) : 0) + 1e-5;
  return slopes.map((slope) => -slope * factor);
}

/** The formula of the paper and of flash-linear-attention: -8 h / H · (1 - l / L), so that head 0 never forgets. */
export function paperDecays(heads: number, layer: number, layers: number): number[] {
  return Array.from({ length: heads }, (_, h) => h === 0 ? 0 : -8 * h / heads * (1 - layer / layers));
}

/** RetNet (Sun et al. 2023): log(1 - 2^(-5 - h)). */
export function retentionDecays(heads: number): number[] {
  return Array.from({ length: heads }, (_, h) => Math.log1p(-(2 ** (-5 - h))));
}
