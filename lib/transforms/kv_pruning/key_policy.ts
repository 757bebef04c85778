// What policies have in common that score keys without queries.

import { budget as checkBudget, whole } from "./option_checks.ts";
import type { KvPolicy, Scorer } from "./policy.ts";
import { slotSchedule } from "./slot_schedule.ts";

/** Settings of policies that score keys without queries. */
export interface KeyPolicyOptions {
  /** Share of the full cache's slots that may be allocated, prompt and new tokens together, above 0 to 1. */
  readonly keep?: number;
  /** The same budget in slots a layer. Excludes `keep`. Without either nothing is dropped. */
  readonly cacheTokens?: number;
  /** Newest tokens of a prompt, kept in any case, at least 1. Default: 1. */
  readonly window?: number;
  /** First tokens of a text, kept in any case. Default: 0. */
  readonly sinks?: number;
}

/** Makes a policy that keeps, for each KV head, the tokens of a prompt with the best scores, and all new ones. */
export function keyPolicy(
  names: { readonly name: string; readonly called: string },
  options: KeyPolicyOptions,
  score: (layer: number) => Scorer,
): KvPolicy {
  const budget = checkBudget(options);
  const window = whole("window", options.window ?? 1, 1);
  const sinks = whole("sinks", options.sinks ?? 0, 0);
  return {
    name: names.name,
    options: { ...options },
    rules: ({ layers }) =>
      Array.from({ length: layers }, (_, layer) => ({
        prefill: { score: score(layer), dropsRows: false, cutsSlots: true, perKvHead: true },
      })),
    schedule: (shape, turn, evicts) =>
      slotSchedule(shape, turn, { policy: names.called, budget, window, sinks, evicts }),
  };
}
