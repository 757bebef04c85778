// Retention of RetNet (Sun et al. 2023, arXiv:2307.08621).

import { type Core, ops } from "../../layers/mod.ts";
import { logDecays } from "./checks.ts";
import { retentionDecays } from "./decays.ts";
import { checkOutputNorm, type OutputNorm, outputNorm } from "./output_norm.ts";
import { features, recurrentCore, sumOverTokens } from "./recurrence.ts";
import type { RotationOption } from "./rotation.ts";

/** Options of {@linkcode retention}. */
export interface RetentionOptions extends OutputNorm {
  /** Decays a position by KV head, each in (0, 1]. Default: 1 - 2^(-5 - h). */
  readonly decays?: readonly number[];
  /** Rotation of queries and keys. Default: the layer's rotary embedding. */
  readonly rotation?: RotationOption;
}

/**
 * Sums over tokens with a fixed decay by head, of queries scaled by 1 / sqrt(headSize); then a norm of every head by itself
 * and, where the layer has an output gate, silu of it.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function retention(options: RetentionOptions = {}): Core {
  checkOutputNorm(options);
  const { rotation } = options;
  return {
    kind: "retention",
    ...recurrentCore(),
    settings: { decays: options.decays ?? "1 - 2^(-5 - h)" },
    apply(trace, input) {
      const { shape, rows } = input;
      const perHead = options.decays
        ? logDecays(options.decays, shape.kvHeads)
        : retentionDecays(shape.kvHeads);
      const mapped = features(trace, input, {
        map: "identity",
        scale: 1 / Math.sqrt(shape.headSize),
        ...(rotation ? { rotation } : {}),
      });
      const sums = sumOverTokens(trace, mapped, shape, { decay: { perHead } });
      const normed = outputNorm(trace, sums, shape.heads, { perHead: true, ...options });
      return input.outputGate ? ops.multiply(trace, normed, input.outputGate(rows), "silu") : normed;
    },
  };
}
