// NormAttention of TransNormer (Qin et al. 2022, arXiv:2210.10340, section 4.1): linear attention whose denominator is
// replaced by a norm.

import type { Core } from "../../layers/mod.ts";
import { ops } from "../../layers/mod.ts";
import { knownWord } from "./checks.ts";
import { checkOutputNorm, type OutputNorm, outputNorm } from "./output_norm.ts";
import { features, recurrentCore, sumOverTokens } from "./recurrence.ts";
import type { RotationOption } from "./rotation.ts";

/** Options of {@linkcode normAttention}. */
export interface NormAttentionOptions extends OutputNorm {
  /** Feature map φ of queries and keys. Default: `1+elu` (T2; T1 has `elu`). */
  readonly featureMap?: ops.FeatureMap;
  /** Whether a row sees only itself and earlier ones. Default: yes. */
  readonly causal?: boolean;
  /** Rotation of features. Default: the layer's rotary embedding. */
  readonly rotation?: RotationOption;
  /** Token whose rows are no keys, in a bidirectional model. */
  readonly padToken?: number;
}

/**
 * Norm(Q (Kᵀ V)): φ, then the rotation, then sums over tokens without scale and without denominator, then a norm without
 * parameters over the whole width (all heads together). Its state is heads · headSize² numbers a sequence.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function normAttention(options: NormAttentionOptions = {}): Core {
  const { featureMap = "1+elu", causal = true, rotation, padToken } = options;
  knownWord("featureMap", featureMap, ops.FEATURE_MAPS);
  checkOutputNorm(options);
  return {
    kind: "norm-attention",
    ...recurrentCore(causal),
    settings: { featureMap, causal },
    apply(trace, input) {
      const mapped = features(trace, input, {
        map: featureMap,
        ...(rotation ? { rotation } : {}),
        ...(padToken === undefined ? {} : { padToken }),
      });
      return outputNorm(
        trace,
        sumOverTokens(trace, mapped, input.shape, { causal }),
        input.shape.heads,
        options,
      );
    },
  };
}
