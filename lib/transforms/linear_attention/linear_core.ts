// Linear attention with a denominator (Katharopoulos et al. 2020, arXiv:2006.16236).

import { type Core, ops } from "../../layers/mod.ts";
import { knownWord, positive } from "./checks.ts";
import { divided, features, recurrentCore, sumOverTokens } from "./recurrence.ts";
import type { RotationOption } from "./rotation.ts";

/** Options of {@linkcode linearAttention}. */
export interface LinearAttentionOptions {
  /** Feature map φ, with values that are not negative. Default: `1+elu`. */
  readonly featureMap?: ops.FeatureMap;
  /** Whether a row sees only itself and earlier ones. Default: yes. */
  readonly causal?: boolean;
  /** Added to the denominator. Default: 1e-10. */
  readonly epsilon?: number;
  /**
   * Whether the denominator takes rotated features too. Default: no, as rotated ones may make it negative (RoFormer's
   * form, Su et al. 2021, section 3.3).
   */
  readonly denominatorRotary?: boolean;
  /** Rotation of features. Default: the layer's rotary embedding. */
  readonly rotation?: RotationOption;
  /** Token whose rows are no keys, in a bidirectional model. */
  readonly padToken?: number;
}

/**
 * φ(Q) (φ(K)ᵀ V) over φ(Q) Σ φ(K).
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function linearAttention(options: LinearAttentionOptions = {}): Core {
  const { featureMap = "1+elu", causal = true, epsilon = 1e-10, denominatorRotary = false } = options;
  const { rotation, padToken } = options;
  knownWord("featureMap", featureMap, ops.FEATURE_MAPS);
  positive("epsilon", epsilon);
  const pads = padToken === undefined ? {} : { padToken };
  return {
    kind: "linear-attention",
    ...recurrentCore(causal),
    settings: { featureMap, causal },
    apply(trace, input) {
      const { shape } = input;
      const mapped = features(trace, input, { map: featureMap, ...(rotation ? { rotation } : {}), ...pads });
      const rotates = rotation !== "none" && (rotation !== undefined || shape.rotary !== undefined);
      const plain = rotates && !denominatorRotary
        ? features(trace, input, { map: featureMap, rotation: "none", ...pads })
        : mapped;
      const sums = sumOverTokens(trace, mapped, shape, { causal });
      return divided(trace, sums, plain, shape, { causal, epsilon });
    },
  };
}
