// A whole Llama from its definition, in f64 and as plainly as possible: no fused weights, no tables of angles, no masks
// but "a slot is seen if its position is not later". As in the pipeline, the core of attention is a value that can be
// swapped, and may leave fewer rows than it got. Keys and values are kept by slot, so that a test can feed a sequence
// in pieces, or drop slots between them.

import { attention, rotate, type Slot } from "./attention.ts";
import { activationOracle, gatherRowsOracle, linearOracle, rmsNormOracle } from "./linear.ts";

/** The fields of a Llama's `config.json` that decide what is computed, under their names there. */
export interface LlamaConfigJson {
  readonly model_type: "llama";
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  /** Default: as many as heads. */
  readonly num_key_value_heads?: number;
  /** Default: `hidden_size / num_attention_heads`. */
  readonly head_dim?: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly rope_theta: number;
  readonly rope_scaling?: RopeScalingJson;
  readonly tie_word_embeddings: boolean;
}

/** `rope_scaling` of a `config.json`. */
export type RopeScalingJson =
  | { readonly rope_type: "linear"; readonly factor: number }
  | {
    readonly rope_type: "llama3";
    readonly factor: number;
    readonly low_freq_factor: number;
    readonly high_freq_factor: number;
    readonly original_max_position_embeddings: number;
  };

/** Tensors by their names in a checkpoint, row-major. */
export type LlamaTensors = ReadonlyMap<string, Float64Array>;

/** Keys and values kept so far: `slots[layer][kvHead]`, in any order. */
export interface LlamaCache {
  readonly slots: Slot[][][];
}

/** What a core gets: the projections of all rows, `[row][head]`, each of `headSize` numbers. */
export interface CoreRows {
  /** Number of the layer. */
  readonly layer: number;
  /** Position of each row in its sequence. */
  readonly positions: readonly number[];
  readonly queries: readonly (readonly Float64Array[])[];
  readonly keys: readonly (readonly Float64Array[])[];
  readonly values: readonly (readonly Float64Array[])[];
  readonly cache: LlamaCache;
}

/** What a core leaves. */
export interface CoreResult {
  /** `[row][head]` for the rows that are left. */
  readonly values: readonly (readonly Float64Array[])[];
  /** Which rows are left, by index among those it got. Default: all. */
  readonly kept?: readonly number[];
}

/** The heart of an attention layer. */
export type CoreOracle = (rows: CoreRows) => CoreResult;

/** What is not the config's to say. */
export interface LlamaOptions {
  /** What is kept from earlier calls; this call's keys and values are added. Default: nothing. */
  readonly cache?: LlamaCache;
  /** Position of each token. Default: from 0 up. */
  readonly positions?: readonly number[];
  /** The cores. Default: {@linkcode softmaxOracle} with the config's rotary embedding. */
  readonly core?: CoreOracle;
}

/** What a Llama says of some tokens. */
export interface LlamaOutput {
  /** [rows, vocab_size], row-major, for the rows that the cores left. */
  readonly logits: Float64Array;
  /** What the head gets, after the last norm: [rows, hidden_size]. */
  readonly hidden: Float64Array;
  /** Position of each row. */
  readonly positions: readonly number[];
}

/** Logits of some tokens. */
export function llamaOracle(
  config: LlamaConfigJson,
  tensors: LlamaTensors,
  ids: readonly number[],
  options: LlamaOptions = {},
): LlamaOutput {
  const { cache = llamaCache(config), core = softmaxOracle(rotaryOracle(config)) } = options;
  const { hidden_size: width, vocab_size: vocabulary, rms_norm_eps: eps } = config;
  let positions = options.positions ?? ids.map((_, i) => i);
  const table = tensorOf(tensors, "model.embed_tokens.weight");
  let x = gatherRowsOracle(table, ids, width);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const { y, kept } = attentionOracle(config, tensors, { layer, x, positions, cache, core });
    positions = kept.map((row) => positions[row]);
    x = sum(gatherRowsOracle(x, kept, width), y);
    x = sum(x, feedForwardOracle(config, tensors, layer, x));
  }
  const rows = positions.length;
  const hidden = rmsNormOracle(x, tensorOf(tensors, "model.norm.weight"), { rows, width, eps });
  const head = config.tie_word_embeddings ? table : tensorOf(tensors, "lm_head.weight");
  return { logits: linearOracle(hidden, head, { rows, k: width, n: vocabulary }), hidden, positions };
}

/** What a block's attention adds to the rows that its core leaves. */
export function attentionOracle(
  config: LlamaConfigJson,
  tensors: LlamaTensors,
  input: {
    readonly layer: number;
    /** [rows, hidden_size]. */
    readonly x: Float64Array;
    readonly positions: readonly number[];
    readonly cache: LlamaCache;
    readonly core: CoreOracle;
  },
): { y: Float64Array; kept: readonly number[] } {
  const { hidden_size: width, rms_norm_eps: eps } = config;
  const { heads, kvHeads, headSize } = headsOf(config);
  const { layer, x, positions, cache, core } = input;
  const weight = (name: string) => tensorOf(tensors, `model.layers.${layer}.${name}.weight`);
  const normed = rmsNormOracle(x, weight("input_layernorm"), { rows: positions.length, width, eps });
  const project = (name: string, count: number) => {
    const n = count * headSize;
    const y = linearOracle(normed, weight(`self_attn.${name}`), { rows: positions.length, k: width, n });
    return positions.map((_, row) =>
      Array.from(
        { length: count },
        (_, head) => y.slice(row * n + head * headSize, row * n + (head + 1) * headSize),
      )
    );
  };
  const { values, kept = positions.map((_, row) => row) } = core({
    layer,
    positions,
    queries: project("q_proj", heads),
    keys: project("k_proj", kvHeads),
    values: project("v_proj", kvHeads),
    cache,
  });
  const mixed = Float64Array.from(values.flatMap((row) => row.flatMap((head) => [...head])));
  const shape = { rows: kept.length, k: heads * headSize, n: width };
  return { y: linearOracle(mixed, weight("self_attn.o_proj"), shape), kept };
}

/** What a block's feed-forward layer adds to its rows. */
export function feedForwardOracle(
  config: LlamaConfigJson,
  tensors: LlamaTensors,
  layer: number,
  x: Float64Array,
): Float64Array {
  const { hidden_size: width, intermediate_size: inner, rms_norm_eps: eps } = config;
  const rows = x.length / width;
  const weight = (name: string) => tensorOf(tensors, `model.layers.${layer}.${name}.weight`);
  const normed = rmsNormOracle(x, weight("post_attention_layernorm"), { rows, width, eps });
  const gate = linearOracle(normed, weight("mlp.gate_proj"), { rows, k: width, n: inner });
  const up = linearOracle(normed, weight("mlp.up_proj"), { rows, k: width, n: inner });
  const product = gate.map((value, i) => activationOracle("silu", value) * up[i]);
  return linearOracle(product, weight("mlp.down_proj"), { rows, k: inner, n: width });
}

/** Causal softmax attention over everything kept, with rotated queries and keys. */
export function softmaxOracle(rotated: (head: Float64Array, position: number) => Float64Array): CoreOracle {
  return ({ layer, positions, queries, keys, values, cache }) => {
    positions.forEach((position, row) =>
      keys[row].forEach((key, head) =>
        cache.slots[layer][head].push({ position, key: rotated(key, position), value: values[row][head] })
      )
    );
    return {
      values: queries.map((heads, row) =>
        heads.map((query, head) => {
          const slots = cache.slots[layer][Math.floor(head * keys[row].length / heads.length)];
          const scale = 1 / Math.sqrt(query.length);
          return attention(rotated(query, positions[row]), positions[row], slots, scale);
        })
      ),
    };
  };
}

/** The rotation of a head that a config asks for. */
export function rotaryOracle(
  config: LlamaConfigJson,
): (head: Float64Array, position: number) => Float64Array {
  const frequencies = llamaFrequencies(config);
  return (head, position) => rotate(head, position, "half", frequencies);
}

/** Radians a position by pair of components, scaled as `rope_scaling` says. */
export function llamaFrequencies(config: LlamaConfigJson): Float64Array {
  const { headSize } = headsOf(config);
  return Float64Array.from({ length: headSize / 2 }, (_, i) => {
    const plain = config.rope_theta ** (-2 * i / headSize);
    const scaling = config.rope_scaling;
    if (!scaling) return plain;
    const slow = plain / scaling.factor;
    if (scaling.rope_type === "linear") return slow;
    // Turns that the pair makes over the context it was trained on: few of them are slowed down, many are not.
    const turns = scaling.original_max_position_embeddings * plain / (2 * Math.PI);
    const { low_freq_factor: few, high_freq_factor: many } = scaling;
    const share = Math.min(1, Math.max(0, (turns - few) / (many - few)));
    return share * plain + (1 - share) * slow;
  });
}

/** An empty cache. */
export function llamaCache(config: LlamaConfigJson): LlamaCache {
  const { kvHeads } = headsOf(config);
  const layer = () => Array.from({ length: kvHeads }, (): Slot[] => []);
  return { slots: Array.from({ length: config.num_hidden_layers }, layer) };
}

/** Numbers of heads and their size. */
export function headsOf(config: LlamaConfigJson): { heads: number; kvHeads: number; headSize: number } {
  const heads = config.num_attention_heads;
  return {
    heads,
    kvHeads: config.num_key_value_heads ?? heads,
    headSize: config.head_dim ?? config.hidden_size / heads,
  };
}

function tensorOf(tensors: LlamaTensors, name: string): Float64Array {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`The oracle has no tensor ${name}`);
  return tensor;
}

function sum(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + b[i]);
}
