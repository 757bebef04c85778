// LayerNorm as a layer.

import type { Weight } from "../graph/mod.ts";
import { normRows } from "../ops/mod.ts";
import { type Hidden, hidden, type Layer, leaf } from "./layer.ts";

/** Configuration of {@linkcode layerNorm}. */
export interface LayerNormConfig {
  /** Factor by column [1, width], f32. Default: none. */
  readonly weight?: Weight;
  /** Added in the end, [1, width] f32. Default: none. */
  readonly bias?: Weight;
  /** Keeps the divisor from zero. */
  readonly epsilon: number;
  /** Whether it is added under the root or to it. Default: `inside`. */
  readonly epsilonPlacement?: "inside" | "additive";
}

/** (x - mean(x)) / sqrt(variance(x) + ε) · w + b by row (Ba et al. 2016). */
export function layerNorm(config: LayerNormConfig): Layer<Hidden, Hidden> {
  return leaf<Hidden, Hidden, LayerNormConfig>(
    "layerNorm",
    config,
    (trace, x) => hidden(normRows(trace, x.value, { kind: "layer", ...config })),
  );
}
