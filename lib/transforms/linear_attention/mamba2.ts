// The state-space form of Mamba-2 (Dao and Gu 2024, arXiv:2405.21060): one decay a head and token, from data.

import { type Core, ops } from "../../layers/mod.ts";
import { features, recurrentCore, sumOverTokens } from "./recurrence.ts";

/** Options of {@linkcode mamba2}. */
export interface Mamba2Options {
  /** exp(A_log) by KV head, positive. Default: 1. */
  readonly rates?: readonly number[];
  /** Added to the step before softplus, by KV head. Default: 0. */
  readonly stepBiases?: readonly number[];
  /** D by KV head: the share of the token's own value that is added. Default: 0, none. */
  readonly skip?: readonly number[];
}

/**
 * S ← exp(dt A) S + dt k vᵀ, o = Sᵀ q + D v, with dt = softplus(decay projection + bias), A = -rate; queries, keys and values
 * stand for C, B and x. Needs the projection `decay` [kvHeads, width]. Short convolutions and the norm with its gate belong to
 * the layer around it.
 *
 * @throws {RangeError} when there is not one finite number a head.
 */
export function mamba2(options: Mamba2Options = {}): Core {
  const { rates, stepBiases, skip } = options;
  return {
    kind: "mamba2",
    ...recurrentCore(),
    needs: ["decay"],
    settings: { rates: rates ?? 1, stepBiases: stepBiases ?? 0 },
    apply(trace, input) {
      const { shape, rows } = input;
      const { q, k, v, keySize } = features(trace, input, { map: "identity", rotation: "none" });
      const steps = input.decay!(rows);
      if (steps.width !== shape.kvHeads) {
        throw new TypeError(
          `mamba2 needs one step for each of ${shape.kvHeads} KV heads: the projection gives ${steps.width}`,
        );
      }
      const biases = stepBiases ? { biases: stepBiases } : {};
      const dt = ops.gate(trace, steps, { kind: "softplus", ...biases });
      const logDecay = ops.gate(trace, steps, {
        kind: "state-space",
        ...biases,
        ...(rates ? { rates } : {}),
      });
      const written = ops.scaleHeads(trace, v, dt);
      const sums = sumOverTokens(trace, { q, k, v: written, keySize }, shape, { decay: "token", logDecay });
      return skip ? ops.addSkip(trace, sums, v, { heads: shape.heads, kvHeads: shape.kvHeads, skip }) : sums;
    },
  };
}
