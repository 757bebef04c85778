// TOVA (Oren et al. 2024): the cache as a fixed set of states, of which the one that the last row needs least goes.

import { budget as checkBudget } from "./option_checks.ts";
import type { EvictRule, KvPolicy } from "./policy.ts";
import { windowAttention } from "./scorers.ts";
import { slotSchedule } from "./slot_schedule.ts";

/** Settings of {@linkcode tova}. */
export interface TovaOptions {
  /** Share of the full cache's slots that may be allocated, prompt and new tokens together, above 0 to 1. */
  readonly keep?: number;
  /** The same budget in slots a layer. Excludes `keep`. Without either nothing is dropped. */
  readonly cacheTokens?: number;
}

/**
 * TOVA (arXiv:2401.06104): a layer keeps the tokens that the last row attends to most, as a mean over all heads,
 *
 *     s[j] = mean over the heads of a[last, j],
 *
 * after the prompt, and then after each new token, for which the token of the lowest score goes at the cap. The newest
 * token itself stays.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function tova(options: TovaOptions = {}): KvPolicy {
  const budget = checkBudget(options);
  const decode: EvictRule = { type: "evict", score: "last", window: 1, sinks: 0, perKvHead: false };
  const prefill = { score: windowAttention(), dropsRows: false, cutsSlots: true, perKvHead: false };
  return {
    name: "tova",
    options: { ...options },
    rules: ({ layers }) => Array.from({ length: layers }, () => ({ prefill, decode })),
    schedule: (shape, turn, evicts = decode) =>
      slotSchedule(shape, turn, { policy: "tova", budget, window: 1, evicts }),
  };
}
