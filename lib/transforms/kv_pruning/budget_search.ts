// Which settings use up a budget and never overrun it. First the decay is solved for, then the recent ratio, then
// geometric ratios that cut each layer's own keys and values, at last a cap for each layer.

import { capTo } from "./caps.ts";
import type { ResolvedPyramidInfer } from "./pyramid_infer_options.ts";
import { type Turn, turnLengths } from "./turn_lengths.ts";

/** Share of a budget that is used at least, unless nothing more could be kept. */
export const LEAST_USE = 0.95;
/** Where the search for a decay ends. */
const LEAST_DECAY = 0.001;

/** Settings and the slots of their schedule. */
interface Candidate {
  readonly options: ResolvedPyramidInfer;
  readonly slots: number;
}

/** The settings at the border of a budget: the largest value that fits, and the least tried that does not. */
interface Border {
  readonly fitting?: Candidate;
  readonly beyond?: Candidate;
}

/** The slots of a schedule, without the schedule. */
function slotsIn(options: ResolvedPyramidInfer, layers: number, turn: Turn): number {
  const { needs } = turnLengths(options, layers, turn, options.caps?.[0]);
  return needs.reduce((sum, need, layer) => sum + Math.min(need, options.caps?.[layer] ?? Infinity), 0);
}

/** Searches a value of which the slots are an almost rising function: a scan from above in steps, then by halves. */
function border(
  make: (value: number) => ResolvedPyramidInfer,
  low: number,
  high: number,
  budget: number,
  slotsOf: (options: ResolvedPyramidInfer) => number,
  steps = 1,
): Border {
  const at = (value: number): Candidate => {
    const options = make(value);
    return { options, slots: slotsOf(options) };
  };
  let above: number | undefined;
  let beyond: Candidate | undefined;
  for (let step = steps; step >= 0; step--) {
    let value = low + (high - low) * step / steps;
    let fitting = at(value);
    if (fitting.slots > budget) {
      above = value;
      beyond = fitting;
      continue;
    }
    for (let half = 0; above !== undefined && half < 24 && fitting.slots < 0.999 * budget; half++) {
      const middle = (value + above) / 2;
      const next = at(middle);
      if (next.slots > budget) {
        above = middle;
        beyond = next;
      } else {
        value = middle;
        fitting = next;
      }
    }
    return { fitting, beyond };
  }
  return { beyond };
}

/** Decay, then recent ratio, then geometric ratios; stops at the first that reaches down to the budget. */
function pruned(
  options: ResolvedPyramidInfer,
  share: number,
  budget: number,
  slotsOf: (options: ResolvedPyramidInfer) => number,
): Border {
  // A lower decay may keep more: a layer that would fall below minContext is not cut at all.
  const byDecay = border(
    (prefillDecay) => ({ ...options, prefillDecay }),
    LEAST_DECAY,
    1,
    budget,
    slotsOf,
    16,
  );
  if (byDecay.fitting) return byDecay;
  const byRatio = border(
    (recentRatio) => ({ ...options, prefillDecay: LEAST_DECAY, recentRatio }),
    0,
    options.recentRatio,
    budget,
    slotsOf,
  );
  if (byRatio.fitting) return byRatio;
  // The window may take half of what may stay: the rest is for what it selects.
  const recentRatio = Math.min(options.recentRatio, share / 2);
  const geometric = {
    ...options,
    prefillDecayStrategy: "geometric",
    recentRatio,
    interval: 1,
    sameLayer: true,
  } as const;
  return border((prefillDecay) => ({ ...geometric, prefillDecay }), 0, 1, budget, slotsOf);
}

/**
 * Settings that use up a budget which is below the full cache and can be met.
 *
 * @param wanted slots of the turn, a real number
 */
export function settingsFor(
  options: ResolvedPyramidInfer,
  layers: number,
  turn: Turn,
  wanted: number,
): ResolvedPyramidInfer {
  const budget = Math.floor(wanted);
  const slotsOf = (tried: ResolvedPyramidInfer): number => slotsIn(tried, layers, turn);
  const enough = (candidate: Candidate | undefined): candidate is Candidate =>
    candidate !== undefined && candidate.slots <= budget && candidate.slots >= LEAST_USE * wanted;
  const share = wanted / (layers * (turn.tokens + turn.maxTokens));
  // Caps cut what a shape needs. Where the ratio that makes room for them needs too little, they cut more of the whole.
  const capped = (shape: ResolvedPyramidInfer): ResolvedPyramidInfer => {
    const prompt = { ...shape, prefillDecay: 1 };
    const all = { ...prompt, genDecay: 1, genCompress: 1 };
    let best: Candidate | undefined;
    for (const tried of [shape, prompt, all, { ...all, recentRatio: 0 }]) {
      const met = capTo(tried, layers, turn, budget);
      const slots = slotsOf(met);
      if (slots > (best?.slots ?? 0)) best = { options: met, slots };
      if (enough(best)) break;
    }
    return best!.options;
  };

  let base = options;
  const whole = { ...options, prefillDecay: 1 };
  const wholeSlots = slotsOf(whole);
  if (wholeSlots <= budget) {
    // The prompt stays whole; blocks of new tokens lose less where the budget would be left unused.
    if (wholeSlots >= LEAST_USE * wanted) return whole;
    const { genDecay, genCompress } = options;
    const looser = border(
      (part) => ({
        ...whole,
        genDecay: genDecay + part * (1 - genDecay),
        genCompress: genCompress + part * (1 - genCompress),
      }),
      0,
      1,
      budget,
      slotsOf,
    );
    if (enough(looser.fitting)) return looser.fitting.options;
    base = looser.beyond?.options ?? whole;
  }

  const { fitting, beyond } = pruned(base, share, budget, slotsOf);
  if (enough(fitting)) return fitting.options;
  // Where one value keeps too little and the next too much, caps cut the next to size.
  if (fitting && beyond) return capped(beyond.options);

  // New tokens alone are too many. The prompt gets its own share; all layers are held to their caps in decode.
  const prompt: Turn = { ...turn, maxTokens: 0 };
  const promptBudget = Math.floor(share * layers * turn.tokens);
  const shaped = pruned(
    { ...base, recentRatio: Math.min(base.recentRatio, share / 2) },
    share,
    promptBudget,
    (tried) => slotsIn(tried, layers, prompt),
  );
  const shape = shaped.fitting?.options ?? { ...base, recentRatio: Math.min(base.recentRatio, share / 2) };
  return capped(shape);
}
