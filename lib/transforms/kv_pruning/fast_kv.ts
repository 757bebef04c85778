// FastKV (Jo et al. 2025): full width up to a middle layer, where most hidden rows are dropped at once.

import type { Turn } from "../../layers/mod.ts";
import { number, whole } from "./option_checks.ts";
import type { KvPolicy, LayerRule } from "./policy.ts";
import { allowedSlots, fedTokens } from "./slot_budget.ts";
import { budgetNeeds, type SlotPlan, slotSchedule } from "./slot_schedule.ts";
import {
  budgetBeside,
  pooledRule,
  type ResolvedSnapKv,
  resolveSnapKv,
  type SnapKvOptions,
} from "./snap_kv.ts";

/** Settings of {@linkcode fastKv}. */
export interface FastKvOptions extends SnapKvOptions {
  /** t*: the layer that drops rows; those up to it compute all of them. Default: 15 of 32 layers, rounded down. */
  readonly startLayer?: number;
  /** Share of the prompt's tokens whose rows it leaves, beside the window's, from 0 to 1. Default: 0.2. */
  readonly tspRate?: number;
}

/** What decides about rows. */
interface RowSettings extends ResolvedSnapKv {
  readonly startLayer: number | undefined;
  readonly tspRate: number;
}

/**
 * The layer that drops rows.
 *
 * @throws {RangeError} when the model has no such layer.
 */
function droppingLayer({ startLayer }: RowSettings, layers: number): number {
  const layer = startLayer ?? Math.floor(layers * 15 / 32);
  if (layer < layers) return layer;
  throw new RangeError(
    `startLayer must be from 0 to ${layers - 1} in a model of ${layers} layers: received ${layer}`,
  );
}

/** Rows that enter each layer; a budget for more than they are leaves more of them. */
function rowsByLayer(
  settings: RowSettings,
  layers: number,
  turn: Turn,
  plan: Omit<SlotPlan, "rows">,
): number[] {
  const { tspRate, window } = settings;
  const { budget } = plan;
  const { tokens } = turn;
  const full = droppingLayer(settings, layers) + 1;
  const upper = layers - full;
  const rows = Array.from({ length: layers }, () => tokens);
  let left = Math.min(tokens, Math.floor(tspRate * tokens) + window);
  if ((budget.keep ?? budget.cacheTokens) !== undefined && upper > 0) {
    const needs = budgetNeeds(turn, plan, rows);
    const news = fedTokens(turn);
    const wanted = Math.min(allowedSlots(budget, turn, needs), layers * (tokens + news));
    const most = full * tokens + upper * left + layers * news;
    left = Math.min(tokens, left + Math.ceil(Math.max(0, wanted - most) / upper));
  }
  return rows.fill(left, full);
}

/**
 * FastKV (arXiv:2502.01068): every KV head keeps its best tokens by SnapKV's pooled scores (`snapKv`); up to layer t* all
 * rows are computed, and there, by the sum of the scores over the heads, all are dropped but `tspRate` of them and the
 * window, so that the layers above never compute them. Those keep a larger share of what they see, as many tokens as the
 * lower ones while there are so many rows; a budget for more leaves more rows.
 *
 * Published settings: window 8, kernel 7, mean, t* 15 of 32 layers, tspRate 0.2, which are the defaults.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function fastKv(options: FastKvOptions = {}): KvPolicy {
  const settings: RowSettings = {
    ...resolveSnapKv(options, { window: 8, kernel: 7, pool: "mean" }),
    startLayer: options.startLayer === undefined ? undefined : whole("startLayer", options.startLayer, 0),
    tspRate: number("tspRate", options.tspRate ?? 0.2, 0, 1),
  };
  const { window } = settings;
  const kept = pooledRule(settings);
  const dropping: LayerRule = { prefill: { ...kept.prefill!, dropsRows: true } };
  return {
    name: "fast-kv",
    options: { ...options },
    rules: ({ layers }) => {
      const start = droppingLayer(settings, layers);
      return Array.from({ length: layers }, (_, layer) => layer === start ? dropping : kept);
    },
    schedule(shape, turn, evicts) {
      const plan = { policy: "fastKv", budget: budgetBeside(settings, evicts), window, evicts };
      const rows = rowsByLayer(settings, shape.layers, turn, plan);
      const schedule = slotSchedule(shape, turn, { ...plan, rows });
      return { ...schedule, solved: { ...schedule.solved, rows } };
    },
  };
}
