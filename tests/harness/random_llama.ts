// Llamas with random weights in any shape, as a checkpoint and as the f64 tensors that the oracle takes.

import type { Gpu } from "../../lib/gpu/mod.ts";
import { loadModel, type Model } from "../../lib/models/mod.ts";
import type { LlamaConfigJson } from "../oracles/llama.ts";
import { randomArray } from "./kernel_case.ts";
import { type HostTensor, writeCheckpoint } from "./safetensors_writer.ts";

/** A Llama made up. */
export interface RandomLlama {
  /** Its `config.json`. */
  readonly config: LlamaConfigJson;
  /** Its tensors under their names in a checkpoint. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/** Sizes that a test leaves open. */
const DEFAULTS: LlamaConfigJson = {
  model_type: "llama",
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 64,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
};

/** Makes a Llama; the same for the same arguments. Activations stay near 1 in every layer. */
export function randomLlama(sizes: Partial<LlamaConfigJson> = {}, seed = 1): RandomLlama {
  const config = { ...DEFAULTS, ...sizes };
  const { hidden_size: hidden, num_attention_heads: heads } = config;
  const headSize = config.head_dim ?? hidden / heads;
  const kvHeads = config.num_key_value_heads ?? heads;
  const tensors = new Map<string, HostTensor>();
  const add = (name: string, rows: number, columns: number, scale = Math.sqrt(3 / columns)) =>
    tensors.set(name, {
      shape: [rows, columns],
      data: randomArray(rows * columns, seed * 1000 + tensors.size, scale) as Float32Array<ArrayBuffer>,
    });
  const norm = (name: string) =>
    tensors.set(name, {
      shape: [hidden],
      data: randomArray(hidden, seed * 1000 + tensors.size, 0.5).map((x) => 1 + x) as Float32Array<
        ArrayBuffer
      >,
    });
  add("model.embed_tokens.weight", config.vocab_size, hidden, 1);
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    norm(`${layer}.input_layernorm.weight`);
    add(`${layer}.self_attn.q_proj.weight`, heads * headSize, hidden);
    add(`${layer}.self_attn.k_proj.weight`, kvHeads * headSize, hidden);
    add(`${layer}.self_attn.v_proj.weight`, kvHeads * headSize, hidden);
    add(`${layer}.self_attn.o_proj.weight`, hidden, heads * headSize);
    norm(`${layer}.post_attention_layernorm.weight`);
    add(`${layer}.mlp.gate_proj.weight`, config.intermediate_size, hidden);
    add(`${layer}.mlp.up_proj.weight`, config.intermediate_size, hidden);
    add(`${layer}.mlp.down_proj.weight`, hidden, config.intermediate_size);
  }
  norm("model.norm.weight");
  if (!config.tie_word_embeddings) add("lm_head.weight", config.vocab_size, hidden);
  return { config, tensors };
}

/** Its tensors in f64, as the oracle takes them. */
export function oracleTensors({ tensors }: RandomLlama): Map<string, Float64Array> {
  return new Map([...tensors].map(([name, { data }]) => [name, Float64Array.from(data)]));
}

/** Writes it to a folder of its own, loads it, and removes the folder. */
export async function loadRandomLlama(
  gpu: Gpu,
  { config, tensors }: RandomLlama,
  dtype: "f16" | "f32" = "f32",
): Promise<Model> {
  const directory = await Deno.makeTempDir({ prefix: "llama" });
  try {
    await writeCheckpoint(directory, { ...config }, tensors);
    return await loadModel(gpu, directory, { dtype });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Token ids, the same for the same arguments. */
export function randomIds(length: number, vocabulary: number, seed = 1): number[] {
  return Array.from(randomArray(length, seed), (x) => Math.floor((x + 1) / 2 * vocabulary));
}
