// Llama (Touvron et al. 2023): RMSNorm before each sublayer, rotary grouped-query attention, SwiGLU.

import type { StorageType } from "../../wgsl/kernel.ts";
import {
  attention,
  embedding,
  type Layer,
  lmHead,
  type Logits,
  pipe,
  residual,
  rmsNorm,
  type Rotary,
  rotaryEmbedding,
  type RotaryScaling,
  softmaxCore,
  swiGlu,
  type TokenIds,
  type Weight,
  type WeightView,
  whole,
} from "../layers/mod.ts";
import {
  type Architecture,
  type ConfigReader,
  modelConfig,
  type TensorSource,
  type WeightSource,
} from "./architecture.ts";
import { checkHeadSize, checkLimits, headSizeOf } from "./sizes.ts";

/** Sizes of a Llama. */
export interface LlamaConfig {
  /** Token ids. */
  readonly vocabularySize: number;
  /** Width of hidden states. */
  readonly hiddenSize: number;
  /** Width of the feed-forward layer. */
  readonly intermediateSize: number;
  /** Number of blocks. */
  readonly layers: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Components of a head. */
  readonly headSize: number;
  /** Added to the mean of squares in norms. */
  readonly epsilon: number;
  /** Rotary embedding. */
  readonly rotary: Rotary;
  /** Whether the head shares the embedding's table. */
  readonly tied: boolean;
  /** Longest sequence. */
  readonly contextLength: number;
}

/** Weights of one block. */
export interface LlamaBlockWeights {
  /** Norm before attention. */
  readonly attentionNorm: Weight;
  /** Queries, keys and values, stacked in this order. */
  readonly queryKeyValue: Weight;
  /** Attention's output projection. */
  readonly output: Weight;
  /** Norm before the feed-forward layer. */
  readonly feedForwardNorm: Weight;
  /** Gate and up projection, stacked in this order. */
  readonly gateUp: Weight;
  /** Down projection. */
  readonly down: Weight;
}

/** Weights of a Llama. */
export interface LlamaWeights {
  /** Embedding table [vocabulary, hidden]. */
  readonly embedding: Weight;
  /** Blocks in order. */
  readonly blocks: readonly LlamaBlockWeights[];
  /** Norm before the head. */
  readonly norm: Weight;
  /** Head; the embedding's table when tied. */
  readonly head: Weight;
}

/** The pipeline of a Llama. */
export function llama(config: LlamaConfig, weights: LlamaWeights): Layer<TokenIds, Logits> {
  const { heads, kvHeads, headSize, epsilon, rotary } = config;
  const range = (weight: Weight, first: number, rows: number): WeightView => ({ weight, first, rows });
  const block = (w: LlamaBlockWeights) =>
    pipe(
      residual(pipe(
        rmsNorm(w.attentionNorm, epsilon),
        attention({
          heads,
          kvHeads,
          headSize,
          rotary,
          weights: {
            query: range(w.queryKeyValue, 0, heads * headSize),
            key: range(w.queryKeyValue, heads * headSize, kvHeads * headSize),
            value: range(w.queryKeyValue, (heads + kvHeads) * headSize, kvHeads * headSize),
            output: whole(w.output),
          },
          core: softmaxCore(),
        }),
      )),
      residual(pipe(
        rmsNorm(w.feedForwardNorm, epsilon),
        swiGlu({
          gate: range(w.gateUp, 0, config.intermediateSize),
          up: range(w.gateUp, config.intermediateSize, config.intermediateSize),
          down: whole(w.down),
        }),
      )),
    );
  return pipe(
    embedding(weights.embedding),
    ...weights.blocks.map(block),
    rmsNorm(weights.norm, epsilon),
    lmHead(weights.head),
  );
}

/** Descriptions of a Llama's weights and the checkpoint tensors they come from. */
export function llamaWeights(
  config: LlamaConfig,
  dtype: StorageType,
): { weights: LlamaWeights; sources: WeightSource[] } {
  const { hiddenSize, intermediateSize, heads, kvHeads, headSize, vocabularySize } = config;
  const sources: WeightSource[] = [];
  const add = (name: string, columns: number, tensors: TensorSource[], type = dtype): Weight => {
    const rows = tensors.reduce((sum, { shape }) => sum + (shape.length === 1 ? 1 : shape[0]), 0);
    const weight = { name, rows, columns, dtype: type };
    sources.push({ weight, tensors });
    return weight;
  };
  const tensor = (name: string, ...shape: number[]): TensorSource => ({ names: [name], shape });
  const norm = (name: string) => add(name, hiddenSize, [tensor(`${name}.weight`, hiddenSize)], "f32");

  const table = "model.embed_tokens.weight";
  const head = "lm_head.weight";
  const embeddingTable = add("embed_tokens", hiddenSize, [{
    // Tied checkpoints may store the one table under either name.
    names: config.tied ? [table, head] : [table],
    shape: [vocabularySize, hiddenSize],
  }]);
  const blocks = Array.from({ length: config.layers }, (_, i) => {
    const prefix = `model.layers.${i}`;
    return {
      attentionNorm: norm(`${prefix}.input_layernorm`),
      queryKeyValue: add(`${prefix}.self_attn.qkv_proj`, hiddenSize, [
        tensor(`${prefix}.self_attn.q_proj.weight`, heads * headSize, hiddenSize),
        tensor(`${prefix}.self_attn.k_proj.weight`, kvHeads * headSize, hiddenSize),
        tensor(`${prefix}.self_attn.v_proj.weight`, kvHeads * headSize, hiddenSize),
      ]),
      output: add(`${prefix}.self_attn.o_proj`, heads * headSize, [
        tensor(`${prefix}.self_attn.o_proj.weight`, hiddenSize, heads * headSize),
      ]),
      feedForwardNorm: norm(`${prefix}.post_attention_layernorm`),
      gateUp: add(`${prefix}.mlp.gate_up_proj`, hiddenSize, [
        tensor(`${prefix}.mlp.gate_proj.weight`, intermediateSize, hiddenSize),
        tensor(`${prefix}.mlp.up_proj.weight`, intermediateSize, hiddenSize),
      ]),
      down: add(`${prefix}.mlp.down_proj`, intermediateSize, [
        tensor(`${prefix}.mlp.down_proj.weight`, hiddenSize, intermediateSize),
      ]),
    };
  });
  const weights: LlamaWeights = {
    embedding: embeddingTable,
    blocks,
    norm: norm("model.norm"),
    head: config.tied
      ? embeddingTable
      : add("lm_head", hiddenSize, [tensor(head, vocabularySize, hiddenSize)]),
  };
  return { weights, sources };
}

function rotaryScaling(config: ConfigReader): RotaryScaling {
  // `rope_parameters` is the newer name of `rope_scaling`.
  const scaling = config.object("rope_parameters") ?? config.object("rope_scaling");
  if (!scaling) return { type: "none" };
  const name = scaling.fields.rope_type == null && scaling.fields.type != null ? "type" : "rope_type";
  // A factor without a type would be ignored.
  const plain = scaling.fields.factor == null ? "default" : undefined;
  const type = scaling.word(name, ["default", "linear", "llama3"], plain);
  if (type === "default") return { type: "none" };
  if (type === "linear") return { type, factor: scaling.positive("factor") };
  const low = scaling.positive("low_freq_factor");
  const high = scaling.positive("high_freq_factor");
  if (high <= low) {
    throw new RangeError(
      `${scaling.path}: high_freq_factor ${high} must be greater than low_freq_factor ${low}`,
    );
  }
  return {
    type,
    factor: scaling.positive("factor"),
    lowFrequencyFactor: low,
    highFrequencyFactor: high,
    originalContext: scaling.integer("original_max_position_embeddings"),
  };
}

/**
 * Reads a Llama's `config.json`.
 *
 * @throws {TypeError} when a field is malformed, or asks for something that is not computed.
 * @throws {RangeError} when sizes do not fit together.
 */
export function llamaConfig(config: ConfigReader): LlamaConfig {
  config.word("hidden_act", ["silu"], "silu");
  config.refuse("attention_bias", [false], "biases are not computed yet");
  config.refuse("mlp_bias", [false], "biases are not computed yet");
  config.refuse("sliding_window", [], "sliding windows are not computed yet");
  config.refuse(
    "quantization_config",
    [],
    "quantised weights are not read yet: use a checkpoint in F16, BF16 or F32",
  );
  config.refuse("partial_rotary_factor", [1], "partial rotary embeddings are not computed for Llama yet");
  const hiddenSize = config.integer("hidden_size");
  const heads = config.integer("num_attention_heads");
  const kvHeads = config.integer("num_key_value_heads", heads);
  if (heads % kvHeads !== 0) {
    throw new RangeError(
      `${config.path}: num_attention_heads ${heads} must be a multiple of num_key_value_heads ${kvHeads}`,
    );
  }
  const headSize = config.fields.head_dim == null
    ? headSizeOf(config, ["hidden_size", hiddenSize], ["num_attention_heads", heads])
    : config.integer("head_dim");
  checkHeadSize(config, headSize);
  const layers = config.integer("num_hidden_layers");
  const vocabularySize = config.integer("vocab_size");
  const contextLength = config.integer("max_position_embeddings", 2048);
  checkLimits(config, {
    layers: ["num_hidden_layers", layers],
    ids: ["vocab_size", vocabularySize],
    positions: ["max_position_embeddings", contextLength],
  });
  const theta = config.object("rope_parameters")?.fields.rope_theta ?? config.fields.rope_theta ?? 10000;
  if (typeof theta !== "number" || !(theta > 0) || theta === Infinity) {
    throw new TypeError(`${config.path}: rope_theta must be a positive number: current value is ${theta}`);
  }
  return {
    vocabularySize,
    hiddenSize,
    intermediateSize: config.integer("intermediate_size"),
    layers,
    heads,
    kvHeads,
    headSize,
    epsilon: config.positive("rms_norm_eps", 1e-6),
    rotary: rotaryEmbedding({
      theta,
      size: headSize,
      positions: contextLength,
      scaling: rotaryScaling(config),
    }),
    tied: config.flag("tie_word_embeddings", false),
    contextLength,
  };
}

/** `model_type: "llama"`. */
export function llamaArchitecture(reader: ConfigReader, dtype: StorageType): Architecture {
  const config = llamaConfig(reader);
  const { weights, sources } = llamaWeights(config, dtype);
  return {
    config: modelConfig("llama", config, reader),
    sources,
    harmless: /rotary_emb\.inv_freq$/,
    pipeline: llama(config, weights),
  };
}
