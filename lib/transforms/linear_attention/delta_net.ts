// DeltaNet (Schlag et al. 2021, arXiv:2102.11174; Yang et al. 2024, arXiv:2406.06484): a write replaces what the key held.

import { type Core, ops } from "../../layers/mod.ts";
import { checkOutputNorm, type OutputNorm, outputNorm } from "./output_norm.ts";
import { features, recurrentCore } from "./recurrence.ts";

/** Options of {@linkcode deltaNet}. */
export interface DeltaNetOptions extends OutputNorm {
  /** Feature map before keys and queries are divided by their length. Default: `silu`. */
  readonly featureMap?: ops.FeatureMap;
}

/** Options of {@linkcode gatedDeltaNet}. */
export interface GatedDeltaNetOptions extends DeltaNetOptions {
  /** exp(A_log) by KV head, positive. Default: 1. */
  readonly rates?: readonly number[];
  /** Added to the decay projection before softplus, by KV head. Default: 0. */
  readonly biases?: readonly number[];
}

/** Shared by both: `gated` says whether the state decays. */
function deltaCore(kind: string, gated: boolean, options: GatedDeltaNetOptions): Core {
  const { featureMap = "silu", rates, biases } = options;
  checkOutputNorm(options);
  return {
    kind,
    ...recurrentCore(),
    needs: gated ? ["beta", "decay"] : ["beta"],
    settings: { featureMap },
    apply(trace, input) {
      const { shape, rows } = input;
      const { heads, kvHeads, headSize } = shape;
      const { q, k, v, keySize } = features(trace, input, {
        map: featureMap,
        rotation: "none",
        normalize: "l2",
        scale: 1 / Math.sqrt(headSize),
      });
      const beta = ops.gate(trace, input.beta!(rows), { kind: "sigmoid" });
      const logDecay = gated
        ? ops.gate(trace, input.decay!(rows), {
          kind: "state-space",
          ...(rates ? { rates } : {}),
          ...(biases ? { biases } : {}),
        })
        : undefined;
      const spec = { heads, kvHeads, keySize, valueSize: headSize };
      const state = ops.recurrentState(trace, ops.deltaStateWords(spec));
      const o = ops.deltaRule(trace, { q, k, v, beta, ...(logDecay ? { logDecay } : {}) }, spec, state);
      const normed = outputNorm(trace, o, heads, { perHead: true, ...options });
      return input.outputGate ? ops.multiply(trace, normed, input.outputGate(rows), "silu") : normed;
    },
  };
}

/**
 * S ← S + β k (v - Sᵀ k)ᵀ with keys and queries of length 1; every head is normed by itself. Needs the projection `beta`
 * [kvHeads, width], of which the sigmoid is taken.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function deltaNet(options: DeltaNetOptions = {}): Core {
  return deltaCore("delta-net", false, options);
}

/**
 * Gated DeltaNet (Yang et al. 2025, arXiv:2412.06464): as {@linkcode deltaNet}, of a state that decays before by exp(-rate ·
 * softplus(decay projection + bias)). Needs the projections `beta` and `decay` [kvHeads, width].
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function gatedDeltaNet(options: GatedDeltaNetOptions = {}): Core {
  return deltaCore("gated-delta-net", true, options);
}
