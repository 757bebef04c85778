// Transforms one after the other.

import type { PipelineModel } from "../layers/mod.ts";

/** A function from a model to a model of the same type. */
export type Transform = <M extends PipelineModel>(model: M) => M;

/**
 * A transform that applies others from left to right: `compose(f, g)(model)` is `g(f(model))`.
 *
 * ```ts ignore
 * const thin = compose(
 *   withLinearAttention(normAttention(), { layers: (i, n) => i >= n / 2 }),
 *   withKvPruning(pyramidInfer({ keep: 0.45 })),
 * )(model);
 * ```
 */
export function compose(...transforms: readonly Transform[]): Transform {
  return (model) => transforms.reduce((result, transform) => transform(result), model);
}
