// PyramidInfer as the algorithm box of its paper has it: top-p over the context, with a p that falls from layer to layer.

import { budget, number, whole } from "./option_checks.ts";
import type { KvPolicy, LayerRule, LayerSchedule, PolicyShape, Schedule } from "./policy.ts";
import type { PyramidInferOptions } from "./pyramid_infer_options.ts";
import { recentShare } from "./pyramid_infer_options.ts";
import { windowAttention } from "./scorers.ts";
import type { SlotBudget } from "./slot_budget.ts";
import { sinksOfTurn, slotSchedule } from "./slot_schedule.ts";
import type { Turn } from "../../layers/mod.ts";

/** Options that say how the released code shrinks, which the paper's box does otherwise or not at all. */
const RELEASED_ONLY = [
  "preset",
  "prefillDecay",
  "prefillDecayStrategy",
  "minContext",
  "interval",
  "genDecay",
  "genDecayStrategy",
  "genCompress",
  "genBlock",
  "sameLayer",
  "startLayer",
  "perKvHead",
] as const satisfies readonly (keyof PyramidInferOptions)[];

/** Options that are those of the paper's box alone. */
const PAPER_ONLY = ["p", "pDecay", "minimum"] as const satisfies readonly (keyof PyramidInferOptions)[];

/** Settings after defaults and checks. */
interface ResolvedPaper {
  readonly p: number;
  readonly pDecay: number;
  readonly minimum: number | readonly number[];
  readonly recentRatio: number;
  readonly sinks: number;
  readonly distanceWeight: number;
  readonly rowCap: number;
  readonly budget: SlotBudget;
}

/**
 * Refuses options of the other algorithm.
 *
 * @throws {RangeError} when one is given.
 */
export function checkAlgorithm(options: PyramidInferOptions): void {
  const { algorithm = "code" } = options;
  const wrong = (algorithm === "code" ? PAPER_ONLY : RELEASED_ONLY).find((name) =>
    options[name] !== undefined
  );
  if (wrong === undefined) return;
  const other = algorithm === "code" ? "paper" : "code";
  throw new RangeError(
    `${wrong} is an option of the algorithm ${JSON.stringify(other)}, and this is ${
      JSON.stringify(algorithm)
    }: ` +
      `leave it out, or set algorithm to ${JSON.stringify(other)}`,
  );
}

function resolve(options: PyramidInferOptions): ResolvedPaper {
  const { minimum = 64, rowCap } = options;
  return {
    p: number("p", options.p ?? 0.95, 0, 1),
    pDecay: number("pDecay", options.pDecay ?? 0.99, 0, 1),
    minimum: typeof minimum === "number"
      ? whole("minimum", minimum, 0)
      : minimum.map((own, layer) => whole(`minimum of layer ${layer}`, own, 0)),
    recentRatio: recentShare(options.recentRatio),
    sinks: whole("sinks", options.sinks ?? 4, 0),
    distanceWeight: number("distanceWeight", options.distanceWeight ?? 1.2, 0, 1000),
    rowCap: rowCap === undefined ? Infinity : whole("rowCap", rowCap, 1),
    budget: budget(options),
  };
}

/**
 * The policy.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function pyramidInferPaper(options: PyramidInferOptions): KvPolicy {
  const resolved = resolve(options);
  const { distanceWeight, sinks } = resolved;
  const rule: LayerRule = {
    prefill: {
      score: windowAttention(distanceWeight),
      nucleus: Math.max(1, distanceWeight),
      dropsRows: true,
      cutsSlots: true,
      perKvHead: false,
    },
    decode: { type: "nucleus", sinks, perKvHead: false },
  };
  return {
    name: "pyramid-infer",
    options: { ...options },
    rules: ({ layers }) => Array.from({ length: layers }, () => rule),
    schedule: (shape, turn) => paperSchedule(resolved, shape, turn),
  };
}

/**
 * The most that each layer may keep. Without a budget that is all of the prompt; a budget is the same number of slots in
 * every layer, of which a layer's own p then leaves as many as it may.
 */
function paperSchedule(options: ResolvedPaper, shape: PolicyShape, turn: Turn): Schedule {
  const { p, pDecay, minimum, recentRatio, sinks, rowCap, budget } = options;
  if (typeof minimum !== "number" && minimum.length !== shape.layers) {
    throw new RangeError(
      `minimum must be one number, or one for each of ${shape.layers} layers: received ${minimum.length}`,
    );
  }
  const window = 1 + Math.floor(recentRatio * turn.tokens);
  const even = slotSchedule(shape, turn, {
    policy: "pyramidInfer",
    budget,
    window,
    scored: Math.min(window, rowCap),
    sinks,
    evicts: { score: "last", window, sinks },
  });
  let rows = turn.tokens;
  const layers = even.layers.map((layer, index): LayerSchedule => {
    const keep = Math.min(rows - layer.window, layer.keepSlots);
    const own = {
      ...layer,
      rows,
      keep,
      keepSlots: keep,
      sinks: Math.min(sinksOfTurn(sinks, turn), keep),
      share: p * pDecay ** index,
      minimum: typeof minimum === "number" ? minimum : minimum[index],
      most: layer.capacity,
      // Slots that were freed and not used again still stand among the others.
      capacity: layer.capacity + Math.max(0, Math.ceil(turn.used?.[index] ?? 0) - layer.past),
    };
    rows = keep + layer.window;
    return own;
  });
  return { ...even, layers, capped: false };
}
