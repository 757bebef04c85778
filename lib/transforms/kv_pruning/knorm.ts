// Key norm (Devoto et al. 2024): keys of small length get the most attention.

import { keyPolicy, type KeyPolicyOptions } from "./key_policy.ts";
import type { KvPolicy } from "./policy.ts";
import { keyNorms } from "./scorers.ts";

/**
 * Key norm (arXiv:2406.11430): each KV head keeps the tokens of the prompt whose keys are shortest, s[j] = -||k[j]||. No
 * query is needed, and position changes nothing. All new tokens are kept; where a budget is too little for them, compose it
 * with a policy that evicts.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function knorm(options: KeyPolicyOptions = {}): KvPolicy {
  return keyPolicy({ name: "knorm", called: "knorm" }, options, keyNorms);
}
