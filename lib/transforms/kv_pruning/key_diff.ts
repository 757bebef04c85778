// KeyDiff (Park et al. 2025): keys that differ from the others get the most attention.

import { keyPolicy, type KeyPolicyOptions } from "./key_policy.ts";
import type { KvPolicy } from "./policy.ts";
import { keyDifferences } from "./scorers.ts";

/**
 * KeyDiff (arXiv:2504.15364): each KV head keeps the tokens of the prompt whose keys, as they are cached, point farthest
 * away from the mean direction, s[j] = -cos(k[j], mean of k / ||k||). No query is needed. All new tokens are kept; where a
 * budget is too little for them, compose it with a policy that evicts.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function keyDiff(options: KeyPolicyOptions = {}): KvPolicy {
  return keyPolicy({ name: "key-diff", called: "keyDiff" }, options, keyDifferences);
}
