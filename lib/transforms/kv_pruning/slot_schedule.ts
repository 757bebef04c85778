// Schedules of policies that keep a number of tokens in each layer and let all rows through.

import type { Turn } from "../../layers/mod.ts";
import type { EvictRule, LayerSchedule, PolicyShape, Schedule } from "./policy.ts";
import {
  allowedSlots,
  type BudgetNeeds,
  dealSlots,
  freeSlots,
  mostSlots,
  type SlotBudget,
} from "./slot_budget.ts";

/** What decode does at the cap, as far as lengths depend on it; none: nothing is evicted. */
export type Evicts = Pick<EvictRule, "score" | "window" | "sinks">;

/** What a policy keeps. */
export interface SlotPlan {
  /** Name of the policy, for errors. */
  readonly policy: string;
  /** How much may be kept. */
  readonly budget: SlotBudget;
  /** Newest rows, never dropped; `rest`: as many as there is room for beside the sinks. */
  readonly window: number | "rest";
  /** First tokens of a text, never dropped. Default: none. */
  readonly sinks?: number;
  /** Newest rows whose queries score. Default: the window. */
  readonly scored?: number;
  /** What decode does at the cap. */
  readonly evicts?: Evicts | undefined;
  /** Rows that enter each layer, where some were dropped. */
  readonly rows?: readonly number[];
  /** Deals slots to the layers. Default: evenly. */
  readonly deal?: (total: number, most: readonly number[]) => number[];
}

/** First tokens that a turn protects: in a later turn they are in the cache already. */
export function sinksOfTurn(sinks: number, turn: Turn): number {
  return turn.past ? 0 : sinks;
}

/** What a plan needs of its budget when so many rows enter each layer. */
export function budgetNeeds(turn: Turn, plan: Omit<SlotPlan, "rows">, rows: readonly number[]): BudgetNeeds {
  const { policy, evicts, window } = plan;
  return {
    policy,
    evicts: evicts !== undefined,
    least: (window === "rest" ? 1 : window) + sinksOfTurn(plan.sinks ?? 0, turn),
    spared: evicts ? evicts.sinks + evicts.window : 0,
    rows,
  };
}

/**
 * Plans a turn: slots by layer within the budget, of which the prompt gets those that new tokens do not need.
 *
 * @throws {RangeError} a budget that cannot be met, with the smallest that can.
 */
export function slotSchedule(shape: PolicyShape, turn: Turn, plan: SlotPlan): Schedule {
  const { budget, deal = dealSlots } = plan;
  const rows = plan.rows ?? Array.from({ length: shape.layers }, () => turn.tokens);
  const sinks = sinksOfTurn(plan.sinks ?? 0, turn);
  const needs = budgetNeeds(turn, plan, rows);
  const most = mostSlots(turn, rows);
  const total = allowedSlots(budget, turn, needs);
  const slots = total === Infinity ? most : deal(total, most);
  const free = freeSlots(turn, needs.evicts);
  const layers = rows.map((count, layer): LayerSchedule => {
    const stored = Math.min(count, slots[layer] - free);
    const window = plan.window === "rest" ? Math.max(1, stored - sinks) : Math.min(plan.window, count);
    const keepSlots = stored - window;
    const past = Math.ceil(turn.past?.[layer] ?? 0);
    return {
      rows: count,
      window,
      scored: Math.min(plan.scored ?? window, count),
      sinks: Math.min(sinks, keepSlots),
      keep: (rows[layer + 1] ?? count) - window,
      keepSlots,
      past,
      capacity: past + slots[layer],
    };
  });
  return { layers, capped: plan.evicts?.score === "sum", solved: solvedSlots(turn, slots) };
}

/** What the record of a run says of a budget. */
export function solvedSlots(turn: Turn, slots: readonly number[]): NonNullable<Schedule["solved"]> {
  const all = slots.reduce((a, b) => a + b, 0);
  return { share: all / (slots.length * (turn.tokens + turn.maxTokens)), slots };
}
