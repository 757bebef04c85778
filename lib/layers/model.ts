// A model: a pipeline of layers with its weights and what every run needs to know of it.

import type { StorageType, Turn, Weight, WeightStore } from "../graph/mod.ts";
import { isAttention } from "./attention.ts";
import { type Layer, type Logits, mapLayers, type TokenIds, walkLayers } from "./layer.ts";
import { attention, type AttentionConfig, type Core } from "./attention.ts";

/** Sizes and ids of a model, whatever its architecture. */
export interface ModelConfig {
  /** `model_type` of `config.json`. */
  readonly modelType: string;
  /** Number of token ids. */
  readonly vocabularySize: number;
  /** Width of hidden states. */
  readonly hiddenSize: number;
  /** Longest sequence, `max_position_embeddings`. */
  readonly contextLength: number;
  /** Ids that end a text, from `config.json`. */
  readonly eosIds: readonly number[];
  /** Id that begins a text, if any. */
  readonly bosId?: number;
}

/** A policy that a model's KV cache is pruned by. */
export interface Pruning {
  /** Name of the policy. */
  readonly policy: string;
  /** Its settings. */
  readonly options: Readonly<Record<string, unknown>>;
  /**
   * What is settled for a turn, when a budget had to be solved.
   *
   * @throws {RangeError} when a budget cannot be met.
   */
  settle(turn: Turn): Readonly<Record<string, unknown>> | undefined;
}

/** Linear attention that was put into a model's layers by a transform. */
export interface LinearizedLayers {
  /** Name of the core. */
  readonly core: string;
  /** Its settings. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Attention layers that have it, from 0. */
  readonly layers: readonly number[];
  /** What that means for what the model writes. */
  readonly warning: string;
}

/** A pipeline from token ids to logits with its weights. Transforms take one and return one. */
export interface PipelineModel {
  /** Sizes and ids. */
  readonly config: ModelConfig;
  /** The layers. */
  readonly pipeline: Layer<TokenIds, Logits>;
  /** Storage type of weights and caches. */
  readonly dtype: StorageType;
  /** Descriptions of all weights. */
  readonly weights: readonly Weight[];
  /** How the KV cache is pruned, if it is. */
  readonly pruning?: Pruning;
  /** Linear attention in place of softmax attention, in the order in which it was put there. */
  readonly linearized?: readonly LinearizedLayers[];
  /** Their buffers; none when the model was only described, for printing its plan. */
  readonly store?: WeightStore;
}

/** The attention layers' configurations in order. */
export function attentionsOf(model: PipelineModel): AttentionConfig[] {
  return [...walkLayers(model.pipeline)].filter(isAttention).map((layer) => layer.config);
}

/** The attention layers' cores in order. */
export function coresOf(model: PipelineModel): Core[] {
  return attentionsOf(model).map(({ core }) => core);
}

/**
 * The same model with other attention layers: `replace` gets each layer's configuration, its index and the number of
 * attention layers. Weights are shared.
 */
export function mapAttentions<M extends PipelineModel>(
  model: M,
  replace: (config: AttentionConfig, index: number, count: number) => AttentionConfig,
): M {
  const count = attentionsOf(model).length;
  let index = 0;
  const pipeline = mapLayers(model.pipeline, (layer) => {
    if (!isAttention(layer)) return layer;
    const config = replace(layer.config, index++, count);
    return config === layer.config ? layer : attention(config);
  });
  return { ...model, pipeline };
}

/** The same model with other cores in its attention layers, as {@linkcode mapAttentions} does. */
export function mapCores<M extends PipelineModel>(
  model: M,
  replace: (config: AttentionConfig, index: number, count: number) => Core,
): M {
  return mapAttentions(model, (config, index, count) => {
    const core = replace(config, index, count);
    return core === config.core ? config : { ...config, core };
  });
}
