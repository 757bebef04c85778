// H2O (Zhang et al. 2023): the tokens that got the most attention so far, and the newest ones.

import { budget as checkBudget, whole } from "./option_checks.ts";
import type { EvictRule, KvPolicy } from "./policy.ts";
import { attentionSums } from "./scorers.ts";
import type { SlotBudget } from "./slot_budget.ts";
import { slotSchedule } from "./slot_schedule.ts";

/** Settings of {@linkcode h2o}. */
export interface H2oOptions {
  /** Share of the full cache's slots that may be allocated, prompt and new tokens together, above 0 to 1. */
  readonly keep?: number;
  /** The same budget in slots a layer. Excludes `keep`. */
  readonly cacheTokens?: number;
  /** W: newest tokens, never evicted. Default: 32. */
  readonly recent?: number;
  /** Heavy hitters that a layer keeps beside them. Excludes the budgets; without any of the three nothing is dropped. */
  readonly heavy?: number;
}

/**
 * H2O (arXiv:2306.14048): each KV head keeps the tokens with the largest sum of attention over all rows so far,
 *
 *     s[j] = sum over the rows i of the mean over the group's heads of a[i, j],
 *
 * and the newest `recent` ones, which have had too few rows to be judged by. Rows of the prompt see only what stands before
 * them, and decode adds to the same sums; at its cap a layer evicts the token of the lowest one for each new token. A budget
 * is that of heavy and recent tokens together, the next one included. A later turn's rows add to each other's sums only.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function h2o(options: H2oOptions = {}): KvPolicy {
  const given = checkBudget(options);
  const window = whole("recent", options.recent ?? 32, 1);
  let budget: SlotBudget = given;
  if (options.heavy !== undefined) {
    if (Object.keys(given).length > 0) {
      throw new RangeError(
        `heavy excludes keep and cacheTokens, which count it: received heavy ${options.heavy}`,
      );
    }
    budget = { promptTokens: whole("heavy", options.heavy, 1) + window };
  }
  const decode: EvictRule = { type: "evict", score: "sum", window, sinks: 0, perKvHead: true };
  const prefill = {
    score: attentionSums(true),
    sums: true,
    dropsRows: false,
    cutsSlots: true,
    perKvHead: true,
  };
  return {
    name: "h2o",
    options: { ...options },
    rules: ({ layers }) => Array.from({ length: layers }, () => ({ prefill, decode })),
    schedule: (shape, turn, evicts = decode) =>
      slotSchedule(shape, turn, { policy: "h2o", budget, window, scored: turn.tokens, evicts }),
  };
}
