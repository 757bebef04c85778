// StreamingLLM (Xiao et al. 2023): the first tokens, on which attention rests, and the newest ones.

import { budget as checkBudget, oneOf, whole } from "./option_checks.ts";
import type { EvictRule, KvPolicy } from "./policy.ts";
import type { SlotBudget } from "./slot_budget.ts";
import { slotSchedule } from "./slot_schedule.ts";

/** Settings of {@linkcode streamingLlm}. */
export interface StreamingLlmOptions {
  /** S: first tokens of a text, never evicted. Default: 4. */
  readonly sinks?: number;
  /** W: newest tokens that are kept beside them. Default: 512. Excludes the budgets. */
  readonly window?: number;
  /**
   * Where tokens stand: `relative` to each other in the cache, without gaps, as published, or at their `original`
   * positions, which is the baseline "local" of PyramidInfer's paper. Default: `relative`.
   */
  readonly positions?: "relative" | "original";
  /** Share of the full cache's slots that may be allocated, prompt and new tokens together, above 0 to 1. */
  readonly keep?: number;
  /** The same budget in slots a layer. Excludes `keep`. */
  readonly cacheTokens?: number;
}

/**
 * StreamingLLM (arXiv:2309.17453): keeps the tokens at positions below S and the newest W, after the prompt and after each
 * new token; nothing is scored. Of a budget the window gets what the sinks leave.
 *
 * With positions relative to the cache a token stands at the place that it has there. As attention depends on differences
 * alone, it is the sinks that move, on by the number of tokens evicted behind them; all other tokens stay at their original
 * positions, by which the model's context limit counts. A prompt is attended to before it is cut. In a session, what is cut
 * between one turn's window and the next turn's stays a gap.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function streamingLlm(options: StreamingLlmOptions = {}): KvPolicy {
  const sinks = whole("sinks", options.sinks ?? 4, 0);
  const given = checkBudget(options);
  let budget: SlotBudget = given;
  if (Object.keys(given).length === 0) {
    budget = { promptTokens: sinks + whole("window", options.window ?? 512, 1) };
  } else if (options.window !== undefined) {
    throw new RangeError(
      `window excludes keep and cacheTokens, which it follows from: received ${options.window}`,
    );
  }
  // The oldest goes, whatever the window: it must only never be the newest.
  const relative =
    oneOf("positions", options.positions ?? "relative", ["relative", "original"]) === "relative";
  const decode: EvictRule = {
    type: "evict",
    score: "position",
    window: 1,
    sinks,
    perKvHead: false,
    relative,
  };
  const prefill = { dropsRows: false, cutsSlots: true, perKvHead: false };
  return {
    name: "streaming-llm",
    options: { ...options },
    rules: ({ layers }) => Array.from({ length: layers }, () => ({ prefill, decode })),
    schedule: (shape, turn, evicts = decode) =>
      slotSchedule(shape, turn, { policy: "streamingLlm", budget, window: "rest", sinks, scored: 1, evicts }),
  };
}
