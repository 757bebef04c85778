// Two policies as one: the first for prompts, the second for what is generated.

import type { Turn } from "../../layers/mod.ts";
import type { EvictRule, KvPolicy, LayerRule, PolicyShape, PrefillRule, Schedule } from "./policy.ts";
import { attentionSums } from "./scorers.ts";
import { fedTokens } from "./slot_budget.ts";

/** Whether a policy was given a budget. */
function hasBudget({ options }: KvPolicy): boolean {
  return ["keep", "cacheTokens", "heavy"].some((name) => options[name] !== undefined);
}

/** Keeps the whole prompt, and notes the attention it gets for decode to add to. */
function keepAll(decode: EvictRule): PrefillRule {
  return {
    score: attentionSums(decode.perKvHead),
    sums: true,
    dropsRows: false,
    cutsSlots: false,
    perKvHead: decode.perKvHead,
  };
}

/**
 * What decode does, the same in all layers.
 *
 * @throws {TypeError} when it does anything but evict at the cap.
 */
function evictRule({ name, rules }: KvPolicy, shape: PolicyShape): EvictRule {
  const [first, ...others] = rules(shape).map(({ decode }) => decode);
  const alike = others.every((rule) => JSON.stringify(rule) === JSON.stringify(first));
  if (first?.type === "evict" && alike) return first;
  throw new TypeError(
    `The second policy must evict at its cap, alike in all layers, as h2o, tova and streamingLlm do: ${name} does not`,
  );
}

/**
 * Cuts prompts as `prefill` does, and evicts tokens at the cap as `decode` does; each KV head keeps tokens of its own in
 * decode where it does so after the prompt, and tokens stay at their positions. The budget is the first policy's, or else the second's.
 *
 * @throws {TypeError} when `decode` does not evict, or does not do so alike in all layers, or `prefill` keeps a share of the
 * attention; once a model is pruned.
 * @throws {RangeError} when both have a budget.
 */
export function composePolicies(prefill: KvPolicy, decode: KvPolicy): KvPolicy {
  if (hasBudget(prefill) && hasBudget(decode)) {
    throw new RangeError(
      `Only one of two policies can have the budget: ${prefill.name} has one, leave that of ${decode.name} out`,
    );
  }
  const capped = hasBudget(decode);
  return {
    name: `${prefill.name}+${decode.name}`,
    options: { prefill: prefill.options, decode: decode.options },
    rules(shape): LayerRule[] {
      const evicts = evictRule(decode, shape);
      return prefill.rules(shape).map((rule) => {
        const before = rule.prefill ?? keepAll(evicts);
        if (before.nucleus !== undefined) {
          throw new TypeError(
            `The first policy must know how much it keeps, and with ${prefill.name} the attention decides that: ` +
              'give it a cap with keep or cacheTokens and use it alone, or take its algorithm "code"',
          );
        }
        return {
          // The other's cap may cut what this one leaves.
          prefill: { ...before, cutsSlots: before.cutsSlots || capped },
          decode: { ...evicts, perKvHead: before.perKvHead, relative: false },
        };
      });
    },
    schedule(shape, turn): Schedule {
      const evicts = evictRule(decode, shape);
      const { windows: _, genBlock: __, ...own } = prefill.schedule(shape, turn, evicts);
      const schedule = capped ? withinCaps(own, decode.schedule(shape, turn), turn) : own;
      checkCaps(schedule, turn, evicts, prefill.name);
      return { ...schedule, capped: evicts.score === "sum" };
    },
  };
}

/** The lengths of one schedule in the capacities of another. */
function withinCaps(lengths: Schedule, caps: Schedule, turn: Turn): Schedule {
  const free = Math.min(1, fedTokens(turn));
  const layers = lengths.layers.map((layer, index) => {
    const capacity = Math.min(layer.capacity, caps.layers[index].capacity);
    const keepSlots = Math.min(layer.keepSlots, capacity - layer.past - free - layer.window);
    return { ...layer, capacity, keepSlots, sinks: Math.min(layer.sinks, Math.max(0, keepSlots)) };
  });
  return { ...lengths, layers, solved: caps.solved };
}

/**
 * Checks that the window fits, and that a full layer has a token that may go.
 *
 * @throws {RangeError} when that is not so.
 */
function checkCaps({ layers }: Schedule, turn: Turn, { sinks, window }: EvictRule, name: string): void {
  const free = Math.min(1, fedTokens(turn));
  for (const [index, layer] of layers.entries()) {
    const longest = layer.past + turn.tokens + fedTokens(turn);
    const needed = Math.max(layer.past + layer.window + free, Math.min(longest, sinks + window + 1));
    if (layer.capacity < needed) {
      throw new RangeError(
        `Layer ${index} has ${layer.capacity} slots, and the tokens that are never evicted and the next one need ` +
          `${needed}: give ${name} a larger budget, or smaller windows to both`,
      );
    }
  }
}
