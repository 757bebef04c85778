// A budget in slots, met before anything runs, or refused with the budgets that can be met.

import { settingsFor } from "./budget_search.ts";
import { leastSlots } from "./caps.ts";
import type { ResolvedPyramidInfer } from "./pyramid_infer_options.ts";
import { pyramidInferSchedule, type Schedule, type Turn } from "./schedule.ts";

/** What a budget was met with. */
export interface SolvedBudget {
  /** The settings with what was solved for in place, caps included. */
  readonly options: ResolvedPyramidInfer;
  /** The plan of the turn with them. */
  readonly schedule: Schedule;
  /** What the budget decided, for the record of a run. */
  readonly solved: {
    /** Share of the full cache's slots that the turn allocates, prompt and most new tokens together. */
    readonly share: number;
    readonly prefillDecay: number;
    readonly prefillDecayStrategy: ResolvedPyramidInfer["prefillDecayStrategy"];
    readonly recentRatio: number;
    readonly sameLayer: boolean;
    readonly genDecay: number;
    readonly genCompress: number;
    /** Most slots of each layer in this turn; undefined where no layer needs a cap. */
    readonly caps: readonly number[] | undefined;
  };
}

/** Slots of a full cache in a turn and in one layer: the last token sampled is never fed. */
function fullLength({ tokens, maxTokens }: Turn): number {
  return tokens + Math.max(0, maxTokens - 1);
}

function refuse(name: "keep" | "cacheTokens", value: number, low: number, high: number, turn: Turn): never {
  throw new RangeError(
    `${name} must be from ${low} to ${high} for ${turn.tokens} tokens and ${turn.maxTokens} new ones: sinks, the ` +
      `window, a block of new tokens and the next token need that many slots: received ${value}`,
  );
}

/** Slots that a budget allows in a turn, as a real number. */
function wantedSlots(options: ResolvedPyramidInfer, layers: number, turn: Turn): number {
  const { keep, cacheTokens } = options;
  const length = turn.tokens + turn.maxTokens;
  const total = layers * length;
  const least = leastSlots(options, layers, turn);
  if (keep !== undefined) {
    const wanted = keep * layers * length;
    // A text that has begun goes on, if with a little more than its share.
    if (turn.past && keep <= 1) return Math.max(wanted, least);
    if (keep > 1 || Math.floor(wanted) < least) {
      let smallest = Math.ceil(least / total * 1e4);
      while (Math.floor(smallest / 1e4 * layers * length) < least) smallest++;
      refuse("keep", keep, smallest / 1e4, 1, turn);
    }
    return wanted;
  }
  const smallest = Math.ceil(least / layers);
  if (turn.past) return Math.max(least, Math.min(cacheTokens!, length) * layers);
  if (cacheTokens! < smallest || cacheTokens! > length) {
    refuse("cacheTokens", cacheTokens!, smallest, length, turn);
  }
  return Math.min(cacheTokens!, length) * layers;
}

/**
 * Plans a turn within `keep` or `cacheTokens`: the capacities of its layers, earlier turns aside, sum up to at most the
 * budget, decode included, and to at least 0.95 of it unless nothing more could be kept. Without a budget the schedule is
 * that of the options. A later turn that is too short for its budget takes the least it can.
 *
 * @param layers softmax layers of the model
 * @throws {RangeError} a budget of a first turn that cannot be met, with the smallest and the largest that can
 */
export function solveBudget(options: ResolvedPyramidInfer, layers: number, turn: Turn): SolvedBudget {
  let met = options;
  if (options.keep !== undefined || options.cacheTokens !== undefined) {
    const wanted = wantedSlots(options, layers, turn);
    met = wanted >= layers * fullLength(turn)
      ? { ...options, prefillDecay: 1, genDecay: 1, genCompress: 1 }
      : settingsFor(options, layers, turn, wanted);
  }
  const schedule = pyramidInferSchedule(met, layers, turn);
  return {
    options: met,
    schedule,
    solved: {
      share: schedule.slots / (layers * (turn.tokens + turn.maxTokens)),
      prefillDecay: met.prefillDecay,
      prefillDecayStrategy: met.prefillDecayStrategy,
      recentRatio: met.recentRatio,
      sameLayer: met.sameLayer,
      genDecay: met.genDecay,
      genCompress: met.genCompress,
      caps: met.caps,
    },
  };
}
