// How many slots each layer may have in a turn, for policies that cut every layer to a number of tokens.

import type { Turn } from "../../layers/mod.ts";

/** How much of a turn may be kept; of these at most one is given, and none means everything. */
export interface SlotBudget {
  /** Share of the full cache's slots for prompt and new tokens, summed over layers. */
  readonly keep?: number;
  /** Slots a layer for prompt and new tokens, on average over the layers. */
  readonly cacheTokens?: number;
  /** Tokens of the prompt that a layer keeps; new ones come to them. */
  readonly promptTokens?: number;
}

/** What a policy needs of its budget. */
export interface BudgetNeeds {
  /** Its name, for errors. */
  readonly policy: string;
  /** Whether decode evicts tokens at the cap; otherwise all new tokens need a slot. */
  readonly evicts: boolean;
  /** Tokens that decode never evicts, sinks and newest ones. */
  readonly spared: number;
  /** Tokens that every layer must have after the prompt, if it got as many. */
  readonly least: number;
  /** Rows that enter each layer. */
  readonly rows: readonly number[];
}

/** New tokens that are fed: the last one sampled never is. */
export function fedTokens({ maxTokens }: Turn): number {
  return Math.max(0, maxTokens - 1);
}

/** Slots that must be free after the prompt. */
export function freeSlots(turn: Turn, evicts: boolean): number {
  return evicts ? Math.min(1, fedTokens(turn)) : fedTokens(turn);
}

/** Gives `total` slots to layers as evenly as their most allow, the odd ones to the first layers. */
export function dealSlots(total: number, most: readonly number[]): number[] {
  const slots = most.map(() => 0);
  let left = Math.min(total, most.reduce((a, b) => a + b, 0));
  while (left > 0) {
    const open = slots.flatMap((count, layer) => count < most[layer] ? [layer] : []);
    const each = Math.max(1, Math.floor(left / open.length));
    for (const layer of open.slice(0, left)) {
      const more = Math.min(each, most[layer] - slots[layer]);
      slots[layer] += more;
      left -= more;
    }
  }
  return slots;
}

/** Most slots that each layer could use in a turn. */
export function mostSlots(turn: Turn, rows: readonly number[]): number[] {
  return rows.map((count) => count + fedTokens(turn));
}

/** Slots that a budget allows in a turn, over all layers; Infinity where it is none. */
export function allowedSlots(budget: SlotBudget, turn: Turn, needs: BudgetNeeds): number {
  const { keep, cacheTokens, promptTokens } = budget;
  const { policy, evicts, least, spared, rows } = needs;
  const layers = rows.length;
  const length = turn.tokens + turn.maxTokens;
  const free = freeSlots(turn, evicts);
  // Where decode evicts, a full layer must have a token that may go.
  const present = evicts ? spared + 1 - Math.min(...turn.past ?? [0]) : 0;
  const longest = turn.tokens + fedTokens(turn);
  const each = Math.ceil(Math.max(Math.min(turn.tokens, least) + free, Math.min(longest, present)));
  const fewest = layers * each;
  const full = layers * length;
  const refuse = (name: string, value: number, low: number, high: number): never => {
    const advice = evicts
      ? "the tokens that are never evicted and the next one need that many slots"
      : `${policy} evicts nothing while tokens are generated, so that each of them needs a slot beside those of its ` +
        "window; compose it with a policy that does (h2o, tova, streamingLlm)";
    throw new RangeError(
      `${name} must be from ${low} to ${high} for ${turn.tokens} tokens and ${turn.maxTokens} new ones: ${advice}: ` +
        `received ${value}`,
    );
  };
  if (keep !== undefined) {
    const allowed = Math.floor(keep * full);
    if (allowed < fewest) {
      // A text that has begun goes on, if with a little more than its share.
      if (turn.past) return fewest;
      let smallest = Math.ceil(fewest / full * 1e4);
      while (Math.floor(smallest / 1e4 * full) < fewest) smallest++;
      refuse("keep", keep, smallest / 1e4, 1);
    }
    return allowed;
  }
  if (cacheTokens !== undefined) {
    if (turn.past) return Math.max(fewest, cacheTokens * layers);
    if (cacheTokens * layers < fewest || cacheTokens > length) {
      refuse("cacheTokens", cacheTokens, each, length);
    }
    return cacheTokens * layers;
  }
  return promptTokens === undefined ? Infinity : Math.max(promptTokens + free, each) * layers;
}
