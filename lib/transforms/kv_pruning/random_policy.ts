// Tokens by chance: the floor that a policy must be above.

import { keyPolicy, type KeyPolicyOptions } from "./key_policy.ts";
import { whole } from "./option_checks.ts";
import type { KvPolicy } from "./policy.ts";
import { hashedPositions } from "./scorers.ts";

/** Settings of {@linkcode randomPolicy}. */
export interface RandomPolicyOptions extends KeyPolicyOptions {
  /** Another seed keeps other tokens, from 0 to 4294967295. Default: 0. */
  readonly seed?: number;
}

/**
 * Keeps tokens of the prompt by chance, others in every layer and KV head: the scores are a hash of seed, layer, head and
 * position, the same in every run. All new tokens are kept.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function randomPolicy(options: RandomPolicyOptions = {}): KvPolicy {
  const seed = whole("seed", options.seed ?? 0, 0, 0xffffffff);
  return keyPolicy(
    { name: "random", called: "randomPolicy" },
    options,
    (layer) => hashedPositions(layer, seed),
  );
}
