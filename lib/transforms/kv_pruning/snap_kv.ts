// SnapKV (Li et al. 2024): what the newest rows attend to is what the answer will need.

import { budget, odd, oneOf, whole } from "./option_checks.ts";
import type { EvictRule, KvPolicy, LayerRule } from "./policy.ts";
import { pooledAttention, type Pooling } from "./scorers.ts";
import type { SlotBudget } from "./slot_budget.ts";
import { slotSchedule } from "./slot_schedule.ts";

/** Settings of policies that score a prompt by its newest rows. */
export interface SnapKvOptions {
  /** Share of the full cache's slots that may be allocated, prompt and new tokens together, above 0 to 1. */
  readonly keep?: number;
  /**
   * The same budget in slots a layer. Excludes `keep`. Without either, a layer keeps 1024 tokens of the prompt, or in a
   * composed policy as many as that of the second one allows.
   */
  readonly cacheTokens?: number;
  /** w: newest rows, which score the others and are never dropped. Default: 32. */
  readonly window?: number;
  /** k: neighbours whose scores are pooled, an odd number from 1 to 255. Default: 7. */
  readonly kernel?: number;
  /** How they are pooled. Default: `max`. */
  readonly pool?: Pooling;
}

/** Settings after defaults and checks. */
export interface ResolvedSnapKv {
  readonly window: number;
  readonly kernel: number;
  readonly pool: Pooling;
  readonly budget: SlotBudget;
}

/** Tokens of a prompt that are kept where no budget is given: C of the published LongBench settings. */
const PROMPT_TOKENS = 1024;

/** Fills in what is left out and checks the rest. */
export function resolveSnapKv(
  options: SnapKvOptions,
  defaults: Required<Pick<SnapKvOptions, "window" | "kernel" | "pool">> = {
    window: 32,
    kernel: 7,
    pool: "max",
  },
): ResolvedSnapKv {
  const given = budget(options);
  return {
    window: whole("window", options.window ?? defaults.window, 1),
    kernel: odd("kernel", options.kernel ?? defaults.kernel, 255),
    pool: oneOf("pool", options.pool ?? defaults.pool, ["max", "mean"]),
    budget: Object.keys(given).length > 0 ? given : { promptTokens: PROMPT_TOKENS },
  };
}

/** The budget that counts: beside another policy's evictions, what was not given is that one's to say. */
export function budgetBeside({ budget }: ResolvedSnapKv, evicts: EvictRule | undefined): SlotBudget {
  return evicts && budget.promptTokens !== undefined ? {} : budget;
}

/** What a layer does that keeps, for each KV head, the best by pooled scores. */
export function pooledRule({ pool, kernel }: ResolvedSnapKv): LayerRule {
  return {
    prefill: { score: pooledAttention(pool, kernel), dropsRows: false, cutsSlots: true, perKvHead: true },
  };
}

/**
 * SnapKV (arXiv:2404.14469): each KV head keeps the tokens of the prompt that the newest `window` rows attend to most,
 *
 *     s[j] = pool over kernel neighbours of (sum over the window's rows i, mean over the group's heads, of a[i, j]),
 *
 * C - window of them, and the window. Nothing is dropped while tokens are generated, so that of a budget the prompt gets
 * what these leave; where that is too little, compose it with a policy that evicts. Published settings: window 32, kernel
 * 7, max, C = 1024 tokens of the prompt, which are the defaults.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function snapKv(options: SnapKvOptions = {}): KvPolicy {
  const resolved = resolveSnapKv(options);
  const { window } = resolved;
  return {
    name: "snap-kv",
    options: { ...options },
    rules: ({ layers }) => Array.from({ length: layers }, () => pooledRule(resolved)),
    schedule: (shape, turn, evicts) =>
      slotSchedule(shape, turn, { policy: "snapKv", budget: budgetBeside(resolved, evicts), window, evicts }),
  };
}
