// A whole Llama from its definition, in f64 and as plainly as possible: no fused weights, no tables of angles, no masks
// but "a slot is seen if its position is not later". Keys and values are kept by slot, so that a test can feed a
// sequence in pieces, or drop slots between them.

import { attention, rotate, type Slot } from "./attention.ts";
import { linearOracle, rmsNormOracle, siluOracle } from "./linear.ts";

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

/** Rows of hidden states with their original positions. */
export interface LlamaRows {
  /** [rows, hidden_size], row-major. */
  readonly x: Float64Array;
  /** Position of each row in its sequence. */
  readonly positions: readonly number[];
}

/** What a Llama says of some tokens. */
export interface LlamaOutput {
  /** [tokens, vocab_size], row-major. */
  readonly logits: Float64Array;
  /** What the head gets, after the last norm: [tokens, hidden_size]. */
  readonly hidden: Float64Array;
}

/** An empty cache. */
export function llamaCache(config: LlamaConfigJson): LlamaCache {
  const { kvHeads } = headsOf(config);
  return {
    slots: Array.from(
      { length: config.num_hidden_layers },
      () => Array.from({ length: kvHeads }, () => []),
    ),
  };
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
    // Turns that the pair makes over the context it was trained on.
    const turns = scaling.original_max_position_embeddings * plain / (2 * Math.PI);
    const { low_freq_factor: few, high_freq_factor: many } = scaling;
    const share = Math.min(1, Math.max(0, (turns - few) / (many - few)));
    return share * plain + (1 - share) * slow;
  });
}

/** Logits of tokens that follow on what `cache` holds; their keys and values are added to it. */
export function llamaOracle(
  config: LlamaConfigJson,
  tensors: LlamaTensors,
  ids: readonly number[],
  cache: LlamaCache = llamaCache(config),
  positions: readonly number[] = ids.map((_, i) => i),
): LlamaOutput {
  const { hidden_size: width, vocab_size: vocabulary, rms_norm_eps: eps } = config;
  const table = tensorOf(tensors, "model.embed_tokens.weight");
  let x = new Float64Array(ids.length * width);
  ids.forEach((id, row) => x.set(table.subarray(id * width, (id + 1) * width), row * width));
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    x = sum(x, attentionOracle(config, tensors, layer, { x, positions }, cache));
    x = sum(x, feedForwardOracle(config, tensors, layer, x));
  }
  const rows = ids.length;
  const hidden = rmsNormOracle(x, tensorOf(tensors, "model.norm.weight"), { rows, width, eps });
  const head = config.tie_word_embeddings ? table : tensorOf(tensors, "lm_head.weight");
  return { logits: linearOracle(hidden, head, { rows, k: width, n: vocabulary }), hidden };
}

/** What a block's attention adds to its rows. Their keys and values are added to the cache first. */
export function attentionOracle(
  config: LlamaConfigJson,
  tensors: LlamaTensors,
  layer: number,
  { x, positions }: LlamaRows,
  cache: LlamaCache,
): Float64Array {
  const { hidden_size: width, rms_norm_eps: eps } = config;
  const { heads, kvHeads, headSize } = headsOf(config);
  const frequencies = llamaFrequencies(config);
  const rows = positions.length;
  const prefix = `model.layers.${layer}`;
  const weight = (name: string) => tensorOf(tensors, `${prefix}.${name}.weight`);
  const normed = rmsNormOracle(x, weight("input_layernorm"), { rows, width, eps });
  const project = (name: string, count: number) =>
    linearOracle(normed, weight(`self_attn.${name}`), { rows, k: width, n: count * headSize });
  const [q, k, v] = [project("q_proj", heads), project("k_proj", kvHeads), project("v_proj", kvHeads)];
  const headOf = (values: Float64Array, row: number, head: number, count: number) =>
    values.slice((row * count + head) * headSize, (row * count + head + 1) * headSize);

  positions.forEach((position, row) => {
    for (let head = 0; head < kvHeads; head++) {
      cache.slots[layer][head].push({
        position,
        key: rotate(headOf(k, row, head, kvHeads), position, "half", frequencies),
        value: headOf(v, row, head, kvHeads),
      });
    }
  });
  const mixed = new Float64Array(rows * heads * headSize);
  positions.forEach((position, row) => {
    for (let head = 0; head < heads; head++) {
      const query = rotate(headOf(q, row, head, heads), position, "half", frequencies);
      const slots = cache.slots[layer][Math.floor(head * kvHeads / heads)];
      const value = attention(query, position, slots, 1 / Math.sqrt(headSize));
      mixed.set(value, (row * heads + head) * headSize);
    }
  });
  return linearOracle(mixed, weight("self_attn.o_proj"), { rows, k: heads * headSize, n: width });
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
  const prefix = `model.layers.${layer}`;
  const weight = (name: string) => tensorOf(tensors, `${prefix}.${name}.weight`);
  const normed = rmsNormOracle(x, weight("post_attention_layernorm"), { rows, width, eps });
  const gate = linearOracle(normed, weight("mlp.gate_proj"), { rows, k: width, n: inner });
  const up = linearOracle(normed, weight("mlp.up_proj"), { rows, k: width, n: inner });
  return linearOracle(gate.map((value, i) => siluOracle(value) * up[i]), weight("mlp.down_proj"), {
    rows,
    k: inner,
    n: width,
  });
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

function sum(a: Float64Array, b: Float64Array): Float64Array<ArrayBuffer> {
  return Float64Array.from(a, (value, i) => value + b[i]);
}
