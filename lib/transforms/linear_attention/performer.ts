// Performer (Choromanski et al. 2021, arXiv:2009.14794): random features whose products are on average exp(q · k).

import { type Core, ops } from "../../layers/mod.ts";
import { positive, wholeNumber } from "./checks.ts";
import { divided, recurrentCore, sumOverTokens } from "./recurrence.ts";
import { rotationOf, type RotationOption } from "./rotation.ts";

/** Options of {@linkcode performer}. */
export interface PerformerOptions {
  /** Random features, a multiple of 4 up to 256. Default: 64. */
  readonly features?: number;
  /** Seed of the directions. Default: 0. */
  readonly seed?: number;
  /** Whether a row sees only itself and earlier ones. Default: yes. */
  readonly causal?: boolean;
  /** Added to the denominator. Default: 1e-10. */
  readonly epsilon?: number;
  /** Rotation of queries and keys, before the features. Default: the layer's rotary embedding. */
  readonly rotation?: RotationOption;
}

/**
 * Positive orthogonal random features exp(w · x - |x|² / 2) / sqrt(m), x = head · headSize^(-1/4), with a denominator: softmax
 * attention on average over the directions, which are drawn once.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function performer(options: PerformerOptions = {}): Core {
  const { features = 64, seed = 0, causal = true, epsilon = 1e-10, rotation } = options;
  wholeNumber("features", features, 4, 256);
  if (features % 4 !== 0) {
    throw new RangeError(`features must be a multiple of 4: current value is ${features}`);
  }
  wholeNumber("seed", seed, 0, 2 ** 32 - 1);
  positive("epsilon", epsilon);
  return {
    kind: "performer",
    ...recurrentCore(causal),
    settings: { features, seed, causal },
    apply(trace, input) {
      const { rows, shape } = input;
      const { heads, kvHeads, headSize } = shape;
      const rotated = { headSize, map: "identity" as const, ...rotationOf(trace, rotation, shape) };
      const turned = (x: ReturnType<typeof input.query>, count: number) =>
        rotated.rotation ? ops.featureMap(trace, x, { ...rotated, heads: count }) : x;
      const random = { headSize, features, seed };
      const projected = { q: input.query(rows), k: input.key(rows), v: input.value(rows) };
      const q = ops.performerFeatures(trace, turned(projected.q, heads), { ...random, heads, isQuery: true });
      const k = ops.performerFeatures(trace, turned(projected.k, kvHeads), {
        ...random,
        heads: kvHeads,
        isQuery: false,
      });
      const mapped = { q, k, v: projected.v, keySize: features };
      return divided(trace, sumOverTokens(trace, mapped, shape, { causal }), mapped, shape, {
        causal,
        epsilon,
      });
    },
  };
}
