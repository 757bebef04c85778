// The policies by name, with the options that each takes: what a command line or a table of results goes by.

import { adaKv } from "./ada_kv.ts";
import type { OptionType } from "../named_options.ts";
import { expectedAttention } from "./expected_attention.ts";
import { fastKv } from "./fast_kv.ts";
import { h2o } from "./h2o.ts";
import { keyDiff } from "./key_diff.ts";
import { knorm } from "./knorm.ts";
import { oneOf } from "./option_checks.ts";
import type { KvPolicy } from "./policy.ts";
import { pyramidInfer } from "./pyramid_infer.ts";
import { PYRAMID_INFER_PRESETS } from "./pyramid_infer_options.ts";
import { pyramidKv } from "./pyramid_kv.ts";
import { randomPolicy } from "./random_policy.ts";
import { snapKv } from "./snap_kv.ts";
import { streamingLlm } from "./streaming_llm.ts";
import { tova } from "./tova.ts";

/** What an option takes: a real number, a whole one, true or false, or one of some words. */
export type PolicyOptionType = Exclude<OptionType, "text">;

/** A policy by name. */
export interface PolicyEntry {
  /** What it does, in one line. */
  readonly summary: string;
  /** Its options by their names in code. */
  readonly options: Readonly<Record<string, PolicyOptionType>>;
  /**
   * Makes it.
   *
   * @throws {RangeError} when an option is out of its range.
   */
  make(options?: Readonly<Record<string, unknown>>): KvPolicy;
}

/** Options that say how much is kept. */
const BUDGET = { keep: "number", cacheTokens: "whole" } as const;
/** Options of policies that score a prompt by its newest rows. */
const WINDOWED = { ...BUDGET, window: "whole", kernel: "whole", pool: ["max", "mean"] } as const;
/** Options of policies that score keys without queries. */
const KEYS = { ...BUDGET, window: "whole", sinks: "whole" } as const;
const STRATEGIES = ["cosine", "constant", "linear"];

/** All policies by their names. */
export const KV_POLICIES: Readonly<Record<string, PolicyEntry>> = {
  "pyramid-infer": {
    summary: "Deep layers keep and compute fewer tokens; generated ones are compressed block by block",
    options: {
      ...BUDGET,
      algorithm: ["code", "paper"],
      p: "number",
      pDecay: "number",
      minimum: "whole",
      preset: Object.keys(PYRAMID_INFER_PRESETS),
      recentRatio: "number",
      prefillDecay: "number",
      prefillDecayStrategy: STRATEGIES,
      minContext: "whole",
      sinks: "whole",
      distanceWeight: "number",
      interval: "whole",
      genDecay: "number",
      genDecayStrategy: STRATEGIES,
      genCompress: "number",
      genBlock: "whole",
      sameLayer: "boolean",
      rowCap: "whole",
      startLayer: "whole",
      perKvHead: "boolean",
    },
    make: pyramidInfer,
  },
  "fast-kv": {
    summary: "Full width up to a middle layer, where most rows are dropped; each KV head keeps its own keys",
    options: { ...WINDOWED, startLayer: "whole", tspRate: "number" },
    make: fastKv,
  },
  "snap-kv": {
    summary: "Each KV head keeps what the prompt's newest rows attend to, with its neighbours",
    options: WINDOWED,
    make: snapKv,
  },
  "pyramid-kv": {
    summary: "As snap-kv, with more for the lower layers and less for the upper ones",
    options: { ...WINDOWED, beta: "number" },
    make: pyramidKv,
  },
  "ada-kv": {
    summary: "As its base, with one budget for the KV heads of a layer, that goes where scores are highest",
    options: { ...WINDOWED, share: "number", base: ["snap-kv", "pyramid-kv"], beta: "number" },
    make: makeAdaKv,
  },
  "h2o": {
    summary: "Keeps the tokens with the most attention so far and the newest ones, while generating too",
    options: { ...BUDGET, recent: "whole", heavy: "whole" },
    make: h2o,
  },
  "tova": {
    summary: "Keeps what the newest row attends to; evicts the token of the least attention during decode",
    options: BUDGET,
    make: tova,
  },
  "streaming-llm": {
    summary: "Keeps the first tokens and the newest; evicts during decode",
    options: { ...BUDGET, sinks: "whole", window: "whole", positions: ["relative", "original"] },
    make: streamingLlm,
  },
  "expected-attention": {
    summary: "Each KV head keeps what queries like the prompt's own would attend to from the next positions",
    options: { ...KEYS, future: "whole", epsilon: "number", valueNorms: "boolean" },
    make: expectedAttention,
  },
  "knorm": {
    summary: "Each KV head keeps the tokens of the prompt whose keys are shortest",
    options: KEYS,
    make: knorm,
  },
  "key-diff": {
    summary: "Each KV head keeps the tokens of the prompt whose keys differ most from the others",
    options: KEYS,
    make: keyDiff,
  },
  "random": {
    summary: "Keeps tokens of the prompt by chance: the floor for other policies",
    options: { ...KEYS, seed: "whole" },
    make: randomPolicy,
  },
};

/** Ada-KV over a base that is named. */
function makeAdaKv({ base = "snap-kv", share, ...others }: Readonly<Record<string, unknown>> = {}): KvPolicy {
  const name = oneOf("base", base as "snap-kv" | "pyramid-kv", ["snap-kv", "pyramid-kv"]);
  if (name === "snap-kv" && others.beta !== undefined) {
    throw new RangeError(`beta is an option of pyramid-kv: take that as the base, or leave beta out`);
  }
  return adaKv({
    base: KV_POLICIES[name].make(others),
    ...(share === undefined ? {} : { share: share as number }),
  });
}
