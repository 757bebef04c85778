// Norms of what linear attention puts out, in place of a denominator.

import { ops, type Trace, type Value } from "../../layers/mod.ts";
import { knownWord, positive } from "./checks.ts";

/** Kinds of output norms: over all heads together unless told otherwise. */
export type OutputNormKind = "rms" | "layer" | "none";

/** A norm without parameters. */
export interface OutputNorm {
  /** SimpleRMSNorm, LayerNorm without parameters, or none. Default: `rms`. */
  readonly norm?: OutputNormKind;
  /** Keeps the divisor from 0. Default: 1e-6. */
  readonly epsilon?: number;
  /** Whether epsilon is added to the mean of squares or to its root. Default: `inside`. */
  readonly epsilonPlacement?: "inside" | "additive";
  /** Whether every head is normed by itself. Default: no, all together. */
  readonly perHead?: boolean;
}

/**
 * @throws {RangeError} when an option is out of its range.
 */
export function checkOutputNorm(
  { norm = "rms", epsilon = 1e-6, epsilonPlacement = "inside" }: OutputNorm,
): void {
  knownWord("norm", norm, ["rms", "layer", "none"]);
  knownWord("epsilonPlacement", epsilonPlacement, ["inside", "additive"]);
  positive("epsilon", epsilon);
}

/** Norms rows [rows, heads · headSize]. */
export function outputNorm(trace: Trace, x: Value, heads: number, options: OutputNorm = {}): Value {
  const { norm = "rms", epsilon = 1e-6, epsilonPlacement = "inside", perHead = false } = options;
  if (norm === "none") return x;
  return ops.normRows(trace, x, { kind: norm, epsilon, epsilonPlacement, groups: perHead ? heads : 1 });
}
