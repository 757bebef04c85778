// PyramidKV (Cai et al. 2024): SnapKV with more for the lower layers and less for the upper ones.

import type { Turn } from "../../layers/mod.ts";
import { number } from "./option_checks.ts";
import type { KvPolicy } from "./policy.ts";
import { dealSlots, freeSlots } from "./slot_budget.ts";
import { slotSchedule } from "./slot_schedule.ts";
import { budgetBeside, pooledRule, resolveSnapKv, type SnapKvOptions } from "./snap_kv.ts";

/** Settings of {@linkcode pyramidKv}. */
export interface PyramidKvOptions extends SnapKvOptions {
  /** The uppermost layer keeps the average's `1 / beta`, from 1. Default: 20. */
  readonly beta?: number;
}

/** What a pyramid is built over. */
export interface PyramidShape {
  readonly layers: number;
  /** Tokens of the prompt. */
  readonly tokens: number;
  /** Newest of them, which all layers keep beside the pyramid's. */
  readonly window: number;
  readonly beta: number;
}

/**
 * Tokens before the window that each layer keeps, from the lowest to the uppermost, of `total` in all: with the average c
 * they fall in a straight line from `2 c - c / beta` to `c / beta`; where the lowest would have more than the context, it
 * has the context and the uppermost what that leaves. A prompt of fewer than 2 c tokens is cut evenly, as published.
 */
export function pyramidTokens(
  total: number,
  { layers, tokens: length, window, beta }: PyramidShape,
): number[] {
  const context = length - window;
  const most = Array.from({ length: layers }, () => context);
  const average = total / layers;
  if (layers === 1 || length < 2 * average) return dealSlots(total, most);
  const least = Math.floor(average / beta);
  const highest = Math.min(context, 2 * average - least);
  const lowest = 2 * average - highest;
  const tokens = most.map((_, layer) => Math.floor(highest - layer * (highest - lowest) / (layers - 1)));
  // What rounding left, to the lower layers first.
  const left = Math.floor(total) - tokens.reduce((a, b) => a + b, 0);
  const more = dealSlots(left, tokens.map((count) => context - count));
  return tokens.map((count, layer) => count + more[layer]);
}

/**
 * PyramidKV (arXiv:2406.02069): scores and selection are SnapKV's (`snapKv`), budgets fall from layer to layer. With the
 * average C a layer and c = C - window,
 *
 *     lo = floor(c / beta), hi = 2 c - lo (at most the context, and then lo = 2 c - hi), k[l] = hi - l (hi - lo) / (N - 1).
 *
 * The published code rounds the step down, so that the layers have more than the budget together; here they have the budget.
 * Published settings: beta 20, kernel 7, max and, in its runner, window 8, which are the defaults.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function pyramidKv(options: PyramidKvOptions = {}): KvPolicy {
  const resolved = resolveSnapKv(options, { window: 8, kernel: 7, pool: "max" });
  const beta = number("beta", options.beta ?? 20, 1, 1e6);
  const { window } = resolved;
  return {
    name: "pyramid-kv",
    options: { ...options },
    rules: ({ layers }) => Array.from({ length: layers }, () => pooledRule(resolved)),
    schedule(shape, turn, evicts) {
      const deal = (total: number, most: readonly number[]) =>
        dealPyramid(total, most, turn, window, beta, !!evicts);
      const budget = budgetBeside(resolved, evicts);
      return slotSchedule(shape, turn, { policy: "pyramidKv", budget, window, evicts, deal });
    },
  };
}

/** Slots by layer: window, what new tokens need, and the pyramid of what is left. */
function dealPyramid(
  total: number,
  most: readonly number[],
  turn: Turn,
  window: number,
  beta: number,
  evicts: boolean,
): number[] {
  const layers = most.length;
  const own = Math.min(window, turn.tokens);
  const fixed = own + freeSlots(turn, evicts);
  const left = total - layers * fixed;
  if (left <= 0) return dealSlots(total, most);
  const context = turn.tokens - own;
  const shape = { layers, tokens: turn.tokens, window: own, beta };
  const slots = pyramidTokens(Math.min(left, layers * context), shape).map((count) => count + fixed);
  // Where the whole context is kept, decode may have what is left.
  const rest = dealSlots(total - slots.reduce((a, b) => a + b, 0), most.map((count, i) => count - slots[i]));
  return slots.map((count, i) => count + rest[i]);
}
