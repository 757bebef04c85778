// RMSNorm as a layer.

import type { Weight } from "../graph/mod.ts";
import { normRows } from "../ops/mod.ts";
import { type Hidden, hidden, type Layer, leaf } from "./layer.ts";

/** Configuration of {@linkcode rmsNorm}. */
export interface RmsNormConfig {
  /** Scale by column [1, width], f32; none is SimpleRMSNorm. */
  readonly weight?: Weight;
  /** Keeps the divisor from zero. */
  readonly epsilon: number;
  /** Whether it is added to the mean of squares inside of the root, or to the root. Default: `inside`. */
  readonly epsilonPlacement?: "inside" | "additive";
}

/** x / sqrt(mean(x²) + ε) · w by row (Zhang and Sennrich 2019), or x / (sqrt(mean(x²)) + ε) · w. */
export function rmsNorm(
  weight: Weight | undefined,
  epsilon: number,
  epsilonPlacement: "inside" | "additive" = "inside",
): Layer<Hidden, Hidden> {
  const config: RmsNormConfig = {
    ...(weight ? { weight } : {}),
    epsilon,
    ...(epsilonPlacement === "inside" ? {} : { epsilonPlacement }),
  };
  return leaf<Hidden, Hidden, RmsNormConfig>(
    "rmsNorm",
    config,
    (trace, x) => hidden(normRows(trace, x.value, { kind: "rms", ...config })),
  );
}
