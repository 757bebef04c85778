// Expected Attention (Devoto et al. 2025): what queries that are still to come will attend to, from those that were.

import { ops } from "../../layers/mod.ts";
import { keyPolicy, type KeyPolicyOptions } from "./key_policy.ts";
import { flag, number, whole } from "./option_checks.ts";
import type { KvPolicy } from "./policy.ts";

/** Settings of {@linkcode expectedAttention}. */
export interface ExpectedAttentionOptions extends KeyPolicyOptions {
  /** First tokens of a text, kept in any case; neither their queries nor their keys take part. Default: 4. */
  readonly sinks?: number;
  /** F: positions ahead over which the queries' rotation is averaged, from 1 to 65536. Default: 512. */
  readonly future?: number;
  /** Added to each key's attention, so that values count where there is little of it, from 0 to 1. Default: 0. */
  readonly epsilon?: number;
  /** Whether tokens count by the length of their values. Default: true. */
  readonly valueNorms?: boolean;
}

/**
 * Expected Attention (arXiv:2510.00636): queries before rotation are taken as normally distributed, with mean and covariance
 * of the prompt's; R is the mean rotation over the next F positions, and each KV head keeps the tokens of the prompt with
 * the largest
 *
 *     z[j] = (R mean) k[j] / sqrt(D) + k[j] (R covariance Rᵀ) k[j] / (2 D),
 *     s[j] = (mean over the group's heads of softmax(z)[j] + epsilon) ||v[j]||.
 *
 * All new tokens are kept; where a budget is too little for them, compose it with a policy that evicts. Published settings:
 * F 512, 4 sinks, which are the defaults; as the base of `adaKv` epsilon 0.01.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function expectedAttention(options: ExpectedAttentionOptions = {}): KvPolicy {
  const sinks = whole("sinks", options.sinks ?? 4, 0);
  const settings = {
    sinks,
    future: whole("future", options.future ?? 512, 1, 65536),
    epsilon: number("epsilon", options.epsilon ?? 0, 0, 1),
    valueNorms: flag("valueNorms", options.valueNorms ?? true),
  };
  const names = { name: "expected-attention", called: "expectedAttention" };
  const policy = keyPolicy(
    names,
    { ...options, sinks },
    () => (trace, { queries, store, selection, shape }) => {
      const rotary = shape.rotary ? { rotary: shape.rotary } : {};
      return ops.expectedAttention(trace, queries, { store, selection, ...settings, ...rotary });
    },
  );
  return { ...policy, options: { ...options } };
}
