// Options of PyramidInfer: their meaning, presets, defaults and ranges. Everything is checked before anything runs.

import { budget, flag, number, oneOf, whole } from "./option_checks.ts";

/** How a ratio changes over the layers: l of N, from the decay d. */
export type DecayStrategy = "cosine" | "constant" | "linear";

/** Settings that the authors released for a model. Names of released configurations, in kebab case. */
export type PyramidInferPreset = "llama2-7b" | "llama2-13b" | "llama3-8b" | "llama2-70b" | "llama3-70b";

/** Settings of PyramidInfer. Source: Yang et al. 2024, "PyramidInfer", and its released code. */
export interface PyramidInferOptions {
  /**
   * `code`: that of the released code, whose lengths follow from the numbers of tokens alone. `paper`: that of the paper's
   * own algorithm box, in which the attention decides how much is kept. Beside their own options, `paper` takes
   * `recentRatio`, `sinks`, `distanceWeight`, `rowCap` and the budgets. Default: `code`.
   */
  readonly algorithm?: "code" | "paper";
  /** `paper`: share of the context's attention that the first layer keeps, from 0 to 1. Default: 0.95. */
  readonly p?: number;
  /** `paper`: p of a layer by that of the layer before, from 0 to 1. Default: 0.99. */
  readonly pDecay?: number;
  /** `paper`: fewest tokens that a selection leaves in a layer's cache, one number or one a layer. Default: 64. */
  readonly minimum?: number | readonly number[];
  /** The released settings that stand where an option is left out. Default: `llama2-7b`. */
  readonly preset?: PyramidInferPreset;
  /** Share of the newest tokens that score the others and are never dropped, from 0 to below 1. */
  readonly recentRatio?: number;
  /** d: where the share of context that a layer leaves to the next ends, from 0 to 1. 1 drops nothing in prefill. */
  readonly prefillDecay?: number;
  /** `cosine`: d + (1 - d)(1 + cos(pi l / N)) / 2; `constant`: d; `linear`: d + (1 - d) l / N, hardest at the bottom. */
  readonly prefillDecayStrategy?: DecayStrategy;
  /** A layer whose context would fall to this many rows or fewer is not cut. */
  readonly minContext?: number;
  /** First tokens of a text, kept in any case. */
  readonly sinks?: number;
  /** Weight of the newest row's attention, where the oldest row that scores has 1. */
  readonly distanceWeight?: number;
  /** In prefill, every so many layers one drops rows. */
  readonly interval?: number;
  /** As `prefillDecay`, for the share of a block of generated tokens that a layer keeps. */
  readonly genDecay?: number;
  /** As `prefillDecayStrategy`, for `genDecay`. */
  readonly genDecayStrategy?: DecayStrategy;
  /** Multiplies every layer's share of a block, from 0 to 1. */
  readonly genCompress?: number;
  /**
   * Generated tokens that are compressed at once, from 4 to 64: a block frees no more slots than steps may be under way
   * that are taken back.
   */
  readonly genBlock?: number;
  /** Share of the full cache's slots that may be allocated, above 0 to 1: decays and ratios are solved for it. */
  readonly keep?: number;
  /** The same budget in slots a layer, on average. Excludes `keep`. */
  readonly cacheTokens?: number;
  /** A layer's selection drops its own keys and values too, not only the rows of the next layers. */
  readonly sameLayer?: boolean;
  /** At most so many of the newest rows score; those never dropped stay the same. Default: all of them. */
  readonly rowCap?: number;
  /** First layer that drops anything; the decays run over the layers from there. */
  readonly startLayer?: number;
  /** Each KV head keeps its own keys and values by its own score; hidden rows go by the sum over the heads. */
  readonly perKvHead?: boolean;
}

/** Options that other settings are made of. */
type Unresolved =
  | "prefillDecayStrategy"
  | "keep"
  | "cacheTokens"
  | "rowCap"
  | "algorithm"
  | "p"
  | "pDecay"
  | "minimum";

/** Settings of the released code's algorithm after defaults and checks. */
export interface ResolvedPyramidInfer extends Required<Omit<PyramidInferOptions, Unresolved>> {
  /** `geometric`, which a budget alone asks for: the ratio d at every layer, down to the sinks, whatever minContext. */
  readonly prefillDecayStrategy: DecayStrategy | "geometric";
  /** Share of the full cache's slots that may be allocated; undefined without such a budget. */
  readonly keep: number | undefined;
  /** Slots a layer that may be allocated, on average; undefined without such a budget. */
  readonly cacheTokens: number | undefined;
  /** Most of the newest rows that score; undefined where all of them do. */
  readonly rowCap: number | undefined;
  /** Most slots that a turn may hold at once in each layer, those of earlier turns aside; only a budget sets them. */
  readonly caps: readonly number[] | undefined;
}

/** What the released configurations differ in: the decay d, and the layers between two that drop rows. */
export const PYRAMID_INFER_PRESETS: Readonly<
  Record<PyramidInferPreset, { readonly prefillDecay: number; readonly interval: number }>
> = {
  "llama2-7b": { prefillDecay: 0.9, interval: 1 },
  "llama2-13b": { prefillDecay: 0.8, interval: 2 },
  "llama3-8b": { prefillDecay: 0.9, interval: 1 },
  "llama2-70b": { prefillDecay: 0.9, interval: 3 },
  "llama3-70b": { prefillDecay: 0.9, interval: 3 },
};

const STRATEGIES: readonly DecayStrategy[] = ["cosine", "constant", "linear"];

/** Share of the newest tokens that are never dropped. */
export function recentShare(value = 0.2): number {
  if (typeof value === "number" && value >= 0 && value < 1) return value;
  throw new RangeError(`recentRatio must be from 0 to below 1: received ${String(value)}`);
}

/**
 * Fills in what is left out and checks the rest.
 *
 * @throws {RangeError} an option outside its range, an unknown preset or strategy, or `keep` beside `cacheTokens`
 */
export function resolvePyramidInfer(options: PyramidInferOptions = {}): ResolvedPyramidInfer {
  const presets = Object.keys(PYRAMID_INFER_PRESETS) as PyramidInferPreset[];
  const preset = oneOf("preset", options.preset ?? "llama2-7b", presets);
  const released = PYRAMID_INFER_PRESETS[preset];
  const { rowCap } = options;
  const { keep, cacheTokens } = budget(options);
  const genBlock = whole("genBlock", options.genBlock ?? 16, 4, 64);
  const recentRatio = recentShare(options.recentRatio);
  // The protected window follows the first layer's length, so a compressed block shrinks it; the next must not be
  // full at once.
  const highest = (genBlock - 2) / genBlock;
  if (recentRatio > highest) {
    throw new RangeError(
      `recentRatio must be at most ${highest} with a genBlock of ${genBlock}, so that blocks close one by one: ` +
        `received ${recentRatio}`,
    );
  }
  const perKvHead = flag("perKvHead", options.perKvHead ?? false);
  return {
    preset,
    recentRatio,
    prefillDecay: number("prefillDecay", options.prefillDecay ?? released.prefillDecay, 0, 1),
    prefillDecayStrategy: oneOf(
      "prefillDecayStrategy",
      options.prefillDecayStrategy ?? "cosine",
      STRATEGIES,
    ),
    minContext: whole("minContext", options.minContext ?? 64, 0),
    sinks: whole("sinks", options.sinks ?? 4, 0),
    distanceWeight: number("distanceWeight", options.distanceWeight ?? 1.2, 0, 1000),
    interval: whole("interval", options.interval ?? released.interval, 1),
    genDecay: number("genDecay", options.genDecay ?? 0.1, 0, 1),
    genDecayStrategy: oneOf("genDecayStrategy", options.genDecayStrategy ?? "cosine", STRATEGIES),
    genCompress: number("genCompress", options.genCompress ?? 0.9, 0, 1),
    genBlock,
    keep,
    cacheTokens,
    sameLayer: flag("sameLayer", options.sameLayer ?? perKvHead),
    rowCap: rowCap === undefined ? undefined : whole("rowCap", rowCap, 1),
    startLayer: whole("startLayer", options.startLayer ?? 0, 0),
    perKvHead,
    caps: undefined,
  };
}
