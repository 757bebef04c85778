// Random Llamas of awkward shapes and settings of PyramidInfer, for the comparison with the oracle. Seeds are chosen so
// that no choice hangs on less than f32 tells; the tests assert that.

import type { PyramidInferOptions } from "../../../lib/transforms/kv_pruning/pyramid_infer_options.ts";
import type { Model } from "../../../lib/models/mod.ts";
import { oracleTensors, randomIds, type RandomLlama, randomLlama } from "../../harness/random_llama.ts";
import type { LlamaConfigJson } from "../../oracles/llama.ts";
import { type PyramidInferOracle, pyramidInferOracle } from "../../oracles/pyramid_infer.ts";
import { type PyramidInferSettings, RELEASED } from "../../oracles/pyramid_infer_lengths.ts";

/** Least relative distance of scores on both sides of a choice, and least lead of a greedy token's logit. */
export const CLEAR = { gap: 1e-5, margin: 2e-4 } as const;
/** Largest distance of log-probabilities. */
export const LOGPROB_TOLERANCE = 5e-5;

/** A comparison. */
export interface PyramidInferCase {
  readonly name: string;
  readonly shape: Partial<LlamaConfigJson>;
  readonly options: PyramidInferOptions;
  readonly promptTokens: number;
  readonly seed: number;
  /** What must have happened, so that the case shows something. */
  readonly drops: readonly ("selected" | "compressed" | "evicted")[];
}

/** Grouped queries, heads that are no share of the hidden size, an untied head. */
export const GROUPED: Partial<LlamaConfigJson> = {
  hidden_size: 36,
  intermediate_size: 52,
  num_hidden_layers: 5,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 12,
  vocab_size: 97,
  max_position_embeddings: 512,
  tie_word_embeddings: false,
};
/** One KV head for all, wider than the hidden size. */
const SHARED: Partial<LlamaConfigJson> = {
  hidden_size: 27,
  intermediate_size: 31,
  num_hidden_layers: 4,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  head_dim: 20,
  vocab_size: 61,
  max_position_embeddings: 512,
  tie_word_embeddings: false,
};
/** As many KV heads as heads. */
const PLAIN: Partial<LlamaConfigJson> = {
  hidden_size: 32,
  intermediate_size: 44,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  vocab_size: 80,
  max_position_embeddings: 512,
  tie_word_embeddings: false,
};

/** All cases. */
export const CASES: readonly PyramidInferCase[] = [
  {
    name: "grouped queries, released settings",
    shape: GROUPED,
    options: {},
    promptTokens: 150,
    seed: 3,
    drops: ["selected", "compressed"],
  },
  {
    name: "one KV head, interval 2",
    shape: SHARED,
    options: { interval: 2, prefillDecay: 0.5, minContext: 8 },
    promptTokens: 131,
    seed: 3,
    drops: ["selected", "compressed"],
  },
  {
    name: "plain heads, interval 2, same layer, linear",
    shape: PLAIN,
    options: {
      interval: 2,
      sameLayer: true,
      prefillDecayStrategy: "linear",
      prefillDecay: 0.4,
      minContext: 8,
    },
    promptTokens: 120,
    seed: 2,
    drops: ["selected", "compressed"],
  },
  {
    name: "grouped queries, a row cap, blocks of 8, a start layer",
    shape: GROUPED,
    options: { rowCap: 7, genBlock: 8, startLayer: 2, prefillDecay: 0.4, minContext: 8, distanceWeight: 3 },
    promptTokens: 97,
    seed: 1,
    drops: ["selected", "compressed"],
  },
  {
    name: "grouped queries, each KV head by itself",
    shape: GROUPED,
    options: { perKvHead: true, sameLayer: true, prefillDecay: 0.6, minContext: 8, recentRatio: 0.1 },
    promptTokens: 110,
    seed: 3,
    drops: ["selected", "compressed"],
  },
  {
    name: "grouped queries, keep 0.6",
    shape: GROUPED,
    options: { keep: 0.6 },
    promptTokens: 120,
    seed: 1,
    drops: ["selected"],
  },
  {
    name: "plain heads, keep 0.3, which decode reaches",
    shape: PLAIN,
    options: { keep: 0.3 },
    promptTokens: 90,
    seed: 1,
    drops: ["selected", "evicted"],
  },
  {
    name: "grouped queries, each KV head by itself, keep 0.35, which decode reaches",
    shape: GROUPED,
    options: { keep: 0.35, perKvHead: true },
    promptTokens: 60,
    seed: 1,
    drops: ["selected", "evicted"],
  },
];

/** The model of a case and its prompt. */
export function sceneOf(
  { shape, promptTokens, seed }: PyramidInferCase,
): { made: RandomLlama; ids: number[] } {
  const made = randomLlama(shape, seed);
  return { made, ids: randomIds(promptTokens, made.config.vocab_size, seed) };
}

/** The oracle's settings for a policy's options. */
export function settingsOf(options: PyramidInferOptions): PyramidInferSettings {
  const { keep, cacheTokens, preset: _preset, ...own } = options;
  return { ...RELEASED, ...own, budget: keep !== undefined || cacheTokens !== undefined };
}

/** What a model's policy settled for a turn, as the oracle takes it; nothing where there is no budget. */
export function settledOf(
  { pruning }: Pick<Model, "pruning">,
  turn: { tokens: number; maxTokens: number; position: number; past?: readonly number[] },
): Partial<PyramidInferSettings> {
  const { prefillDecay, prefillDecayStrategy, recentRatio, sameLayer, genDecay, genCompress, caps } = (pruning
    ?.settle(turn) ?? {}) as unknown as PyramidInferSettings;
  const settled = { prefillDecay, prefillDecayStrategy, recentRatio, sameLayer, genDecay, genCompress, caps };
  return Object.fromEntries(Object.entries(settled).filter(([, value]) => value !== undefined));
}

/** An oracle for a Llama and a policy's options. */
export function oracleOf(
  { made, options }: { made: RandomLlama; options: PyramidInferOptions },
): PyramidInferOracle {
  return pyramidInferOracle(made.config, oracleTensors(made), settingsOf(options));
}
