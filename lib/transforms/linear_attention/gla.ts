// Gated linear attention (Yang et al. 2024, arXiv:2312.06635): a decay for every key component, from data.

import { type Core, ops } from "../../layers/mod.ts";
import { positive } from "./checks.ts";
import { checkOutputNorm, type OutputNorm, outputNorm } from "./output_norm.ts";
import { features, recurrentCore } from "./recurrence.ts";
import type { RotationOption } from "./rotation.ts";

/** Options of {@linkcode gla}. */
export interface GlaOptions extends OutputNorm {
  /** Divides the logarithm of the decay. Default: 16. */
  readonly gateScale?: number;
  /** Rotation of queries and keys. Default: none. */
  readonly rotation?: RotationOption;
}

/**
 * S ← diag(exp(g)) S + k vᵀ, g = log sigmoid(decay projection) / 16 by key component; queries scaled by 1 / sqrt(headSize),
 * every head normed by itself, silu of the output gate where the layer has one. Needs the projection `decay` [kvHeads ·
 * headSize, width].
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function gla(options: GlaOptions = {}): Core {
  const { gateScale = 16, rotation = "none" } = options;
  positive("gateScale", gateScale);
  checkOutputNorm(options);
  return {
    kind: "gla",
    ...recurrentCore(),
    needs: ["decay"],
    settings: { gateScale },
    apply(trace, input) {
      const { shape, rows } = input;
      const { heads, kvHeads, headSize } = shape;
      const { q, k, v, keySize } = features(trace, input, {
        map: "identity",
        rotation,
        scale: 1 / Math.sqrt(headSize),
      });
      const logDecay = ops.gate(trace, input.decay!(rows), { kind: "log-sigmoid", scale: gateScale });
      if (logDecay.width !== kvHeads * keySize) {
        throw new TypeError(
          `gla needs a decay for each of ${
            kvHeads * keySize
          } key components: the projection gives ${logDecay.width}`,
        );
      }
      const spec = { heads, kvHeads, keySize, valueSize: headSize };
      const state = ops.recurrentState(trace, ops.glaStateWords(spec));
      const sums = ops.gatedLinearAttention(trace, { q, k, v, logDecay }, spec, state);
      const normed = outputNorm(trace, sums, heads, { perHead: true, ...options });
      return input.outputGate ? ops.multiply(trace, normed, input.outputGate(rows), "silu") : normed;
    },
  };
}
