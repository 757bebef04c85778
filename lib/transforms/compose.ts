// Transforms one after the other.

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
export function compose<M>(...transforms: readonly ((model: M) => M)[]): (model: M) => M {
  return (model) => transforms.reduce((result, transform) => transform(result), model);
}
