// RMSNorm as a layer.

import type { Weight } from "../graph/mod.ts";
import { rmsNorm as rmsNormOp } from "../ops/mod.ts";
import { type Hidden, hidden, type Layer, leaf } from "./layer.ts";

/** Configuration of {@linkcode rmsNorm}. */
export interface RmsNormConfig {
  /** Scale by column [1, width], f32; none is SimpleRMSNorm. */
  readonly weight?: Weight;
  /** Added to the mean of squares. */
  readonly epsilon: number;
}

/** x / sqrt(mean(x²) + ε) · w by row (Zhang and Sennrich 2019). */
export function rmsNorm(weight: Weight | undefined, epsilon: number): Layer<Hidden, Hidden> {
  const config: RmsNormConfig = weight ? { weight, epsilon } : { epsilon };
  return leaf<Hidden, Hidden, RmsNormConfig>(
    "rmsNorm",
    config,
    (trace, x) => hidden(rmsNormOp(trace, x.value, weight, epsilon)),
  );
}
