// Ada-KV (Feng et al. 2024): heads that look far and wide keep more than those that do not.

import { number } from "./option_checks.ts";
import type { KvPolicy, LayerRule } from "./policy.ts";
import { snapKv, type SnapKvOptions } from "./snap_kv.ts";

/** Settings of {@linkcode adaKv}. */
export interface AdaKvOptions extends SnapKvOptions {
  /** alpha: share of its even part of the budget that each KV head is sure of, from 0 to 1. Default: 0.2. */
  readonly share?: number;
  /**
   * The policy whose scores and budgets are spread: one that cuts each KV head for itself. Default: `snapKv` with the other
   * options; with a base these are its own, and must be left out here.
   */
  readonly base?: KvPolicy;
}

/**
 * What a layer does, with the budget of its heads together.
 *
 * @throws {TypeError} when its heads do not keep tokens of their own.
 */
function spreadRule({ name }: KvPolicy, rule: LayerRule, spread: number): LayerRule {
  if (!rule.prefill) return rule;
  if (rule.prefill.perKvHead && rule.prefill.cutsSlots && rule.prefill.score) {
    return { ...rule, prefill: { ...rule.prefill, spread } };
  }
  throw new TypeError(
    `adaKv spreads budgets of policies whose KV heads keep tokens of their own, as snapKv's do: those of ${name} do not`,
  );
}

/**
 * Ada-KV (arXiv:2407.11550): the KV heads of a layer share one budget. Of k tokens a head on average, each is sure of its
 * `floor(share * k)` best ones, and all others are the best over all heads and tokens together. Heads then have different
 * numbers of slots, which are really allocated: the layer has no more of them than with even parts. In later turns of a
 * session heads get even parts.
 *
 * @throws {RangeError} when an option is out of its range, or beside a base.
 */
export function adaKv(options: AdaKvOptions = {}): KvPolicy {
  const { share = 0.2, base: given, ...others } = options;
  const spread = number("share", share, 0, 1);
  const [extra] = Object.entries(others).find(([, value]) => value !== undefined) ?? [];
  if (given && extra) throw new RangeError(`${extra} is an option of the base: give it to ${given.name}`);
  const base = given ?? snapKv(others);
  return {
    name: "ada-kv",
    options: given ? { ...base.options, share, base: base.name } : { ...options },
    rules: (shape) => base.rules(shape).map((rule) => spreadRule(base, rule, spread)),
    schedule: (shape, turn, evicts) => base.schedule(shape, turn, evicts),
  };
}
