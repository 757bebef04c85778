// cosFormer (Qin et al. 2022, arXiv:2202.08791): ReLU features, reweighted by the cosine of the distance.

import type { Core } from "../../layers/mod.ts";
import { positive, wholeNumber } from "./checks.ts";
import { divided, features, sumOverTokens } from "./recurrence.ts";

/** Options of {@linkcode cosFormer}. */
export interface CosFormerOptions {
  /** M: longest sequence, fixed before; distances are measured against it. */
  readonly maxLength: number;
  /** Whether a row sees only itself and earlier ones. Default: yes. */
  readonly causal?: boolean;
  /** Least denominator. Default: 1e-4. */
  readonly clamp?: number;
}

/**
 * Σ over tokens of relu(q) · relu(k) cos(π / 2 · (i - j) / M) v over the sum of the weights. The layer's rotary embedding is
 * left out: cos takes its place. Sequences over `maxLength` are refused.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function cosFormer({ maxLength, causal = true, clamp = 1e-4 }: CosFormerOptions): Core {
  wholeNumber("maxLength", maxLength, 1, 2 ** 24);
  positive("clamp", clamp);
  return {
    kind: "cosformer",
    prefill: causal ? "sliced" : "whole",
    positionLimit: true,
    longest: maxLength,
    ...(causal ? {} : { bidirectional: true }),
    settings: { maxLength, causal },
    apply(trace, input) {
      const { shape } = input;
      const thetas = new Array<number>(shape.headSize).fill(Math.PI / (2 * maxLength));
      const mapped = features(trace, input, { map: "relu", rotation: { layout: "concat", thetas } });
      const sums = sumOverTokens(trace, mapped, shape, { causal });
      return divided(trace, sums, mapped, shape, { causal, clamp });
    },
  };
}
