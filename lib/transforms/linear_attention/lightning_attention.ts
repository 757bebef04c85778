// Lightning attention of TransNormerLLM (Qin et al. 2023, arXiv:2307.14995; 2024, arXiv:2405.17381): decay by head, norm over
// all heads, gate.

import { type Core, ops } from "../../layers/mod.ts";
import { knownWord, logDecays } from "./checks.ts";
import { alibiDecays, paperDecays } from "./decays.ts";
import { checkOutputNorm, type OutputNorm, outputNorm } from "./output_norm.ts";
import { features, recurrentCore, sumOverTokens } from "./recurrence.ts";
import type { RotationOption } from "./rotation.ts";

/** Options of {@linkcode lightningAttention}. */
export interface LightningAttentionOptions extends OutputNorm {
  /** Feature map of queries and keys. Default: `silu`. */
  readonly featureMap?: ops.FeatureMap;
  /** Decays a position by KV head, each in (0, 1]. Default: by `formula`. */
  readonly decays?: readonly number[];
  /** Logarithms of the decays, where they are too near 1 to be told apart from it; instead of `decays`. */
  readonly logDecays?: readonly number[];
  /**
   * `alibi`: exp(-slope · (1 - l / (L - 1) + 1e-5)) with ALiBi's slopes, as released checkpoints have them; `paper`:
   * exp(-8 h / H · (1 - l / L)). Default: `alibi`.
   */
  readonly formula?: "alibi" | "paper";
  /** Index of the layer, for the formula. Default: 0. */
  readonly layer?: number;
  /** Number of layers, for the formula. Default: 1. */
  readonly layers?: number;
  /** Rotation of features. Default: none. */
  readonly rotation?: RotationOption;
}

/**
 * u · SRMSNorm(Σ over s ≤ t of λ^(t - s) (q_t · k_s) v_s), heads together; u is the layer's output gate, where it has one.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function lightningAttention(options: LightningAttentionOptions = {}): Core {
  const { featureMap = "silu", formula = "alibi", layer = 0, layers = 1, rotation = "none" } = options;
  knownWord("featureMap", featureMap, ops.FEATURE_MAPS);
  knownWord("formula", formula, ["alibi", "paper"]);
  checkOutputNorm(options);
  return {
    kind: "lightning-attention",
    ...recurrentCore(),
    settings: { featureMap, formula: options.decays || options.logDecays ? "given" : formula },
    apply(trace, input) {
      const { shape, rows } = input;
      const perHead = options.logDecays ??
        (options.decays
          ? logDecays(options.decays, shape.kvHeads)
          : (formula === "alibi" ? alibiDecays : paperDecays)(shape.kvHeads, layer, layers));
      const mapped = features(trace, input, { map: featureMap, rotation });
      const sums = sumOverTokens(trace, mapped, shape, { decay: { perHead } });
      const normed = outputNorm(trace, sums, shape.heads, options);
      return input.outputGate ? ops.multiply(trace, normed, input.outputGate(rows), "identity") : normed;
    },
  };
}
