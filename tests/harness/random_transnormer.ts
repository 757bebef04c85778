// TransNormers and TransNormerLLMs with random weights for any config, as checkpoints and as the f64 tensors that the oracle
// takes.

import type { Gpu } from "../../lib/gpu/mod.ts";
import { loadModel, type Model } from "../../lib/models/mod.ts";
import type { Fields } from "../oracles/transnormer.ts";
import { randomArray } from "./kernel_case.ts";
import { type HostTensor, writeCheckpoint } from "./safetensors_writer.ts";

/** A model made up. */
export interface RandomTransNormer {
  /** Its `config.json`. */
  readonly config: Fields;
  /** Its tensors under their names in a checkpoint. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/** Makes tensors, the same for the same seed. */
function tensorMaker(seed: number) {
  const tensors = new Map<string, HostTensor>();
  const random = (shape: number[], scale: number, around = 0) => ({
    shape,
    data: randomArray(shape.reduce((a, b) => a * b, 1), seed * 1000 + tensors.size, scale)
      .map((x) => x + around) as Float32Array<ArrayBuffer>,
  });
  return {
    tensors,
    matrix: (name: string, rows: number, columns: number, scale = Math.sqrt(3 / columns)) =>
      tensors.set(name, random([rows, columns], scale)),
    vector: (name: string, shape: number[], scale = 0.3, around = 0) =>
      tensors.set(name, random(shape, scale, around)),
    linear(name: string, rows: number, columns: number, bias: boolean): void {
      this.matrix(`${name}.weight`, rows, columns);
      if (bias) this.vector(`${name}.bias`, [rows]);
    },
  };
}

const TRANSNORMER: Fields = {
  model_type: "transnormer",
  vocab_size: 61,
  hidden_size: 32,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  layer_types: ["diag", "norm"],
  diag_block_size: 16,
  intermediate_size: 44,
  max_position_embeddings: 256,
};

/** A TransNormer with these fields over small ones. */
export function randomTransNormer(fields: Fields = {}, seed = 1): RandomTransNormer {
  const config = { ...TRANSNORMER, ...fields };
  const width = config.hidden_size as number;
  const heads = config.num_attention_heads as number;
  const headSize = (config.head_dim ?? width / heads) as number;
  const kvHeads = (config.num_key_value_heads ?? heads) as number;
  const inner = config.intermediate_size as number;
  const make = tensorMaker(seed);
  const affine = config.norm_affine ?? (config.norm_type ?? "simplermsnorm") !== "simplermsnorm";
  const norm = (name: string) => {
    if (!affine) return;
    make.vector(`${name}.weight`, [width], 0.5, 1);
    if (config.norm_type === "layernorm") make.vector(`${name}.bias`, [width]);
  };
  make.matrix("model.embed_tokens.weight", config.vocab_size as number, width, 1);
  if (config.position_embedding === "learned") {
    const pad = config.pad_token_id;
    const offset = (config.position_offset ?? (typeof pad === "number" ? pad + 1 : 0)) as number;
    make.matrix(
      "model.embed_positions.weight",
      (config.max_position_embeddings as number) + offset,
      width,
      0.5,
    );
  }
  if (config.embedding_norm === "layernorm") {
    make.vector("model.embed_norm.weight", [width], 0.5, 1);
    make.vector("model.embed_norm.bias", [width]);
  }
  const attention = (prefix: string) => {
    const bias = (config.attention_bias ?? true) as boolean;
    make.linear(`${prefix}.q_proj`, heads * headSize, width, bias);
    make.linear(`${prefix}.k_proj`, kvHeads * headSize, width, bias);
    make.linear(`${prefix}.v_proj`, kvHeads * headSize, width, bias);
    make.linear(`${prefix}.o_proj`, width, heads * headSize, bias);
    if (config.rope_trainable) make.vector(`${prefix}.rope.theta`, [headSize / 2], 0.4, 0.5);
    if (config.rope_projection === "householder") {
      make.vector(`${prefix}.rope.householder`, [headSize], 1);
      const { data } = make.tensors.get(`${prefix}.rope.householder`)!;
      const length = Math.hypot(...data);
      data.forEach((x, i) => data[i] = x / length);
    }
  };
  for (const [i, kind] of (config.layer_types as string[]).entries()) {
    const prefix = `model.layers.${i}`;
    for (const branch of kind === "parallel" ? ["attn_diag", "attn_norm"] : ["attn"]) {
      attention(`${prefix}.${branch}`);
    }
    norm(`${prefix}.input_layernorm`);
    norm(`${prefix}.post_attention_layernorm`);
    const bias = (config.ffn_bias ?? true) as boolean;
    make.linear(`${prefix}.ffn.l1`, inner, width, bias);
    make.linear(`${prefix}.ffn.l2`, inner, width, bias);
    make.linear(`${prefix}.ffn.l3`, width, inner, bias);
  }
  if (config.final_norm ?? config.pre_norm ?? true) norm("model.norm");
  if (config.tie_word_embeddings === false) make.matrix("lm_head.weight", config.vocab_size as number, width);
  return { config, tensors: make.tensors };
}

const TRANSNORMER_LLM: Fields = {
  model_type: "transnormer",
  vocab_size: 61,
  decoder_embed_dim: 32,
  decoder_layers: 2,
  decoder_attention_heads: 4,
  glu_dim: 44,
  linear_act_fun: "swish",
  linear_use_lrpe_list: [1, 0],
  norm_type: "simplermsnorm",
  no_scale_embedding: false,
  model_max_length: 256,
};

/** A TransNormerLLM with these fields over small ones. */
export function randomTransNormerLlm(fields: Fields = {}, seed = 1): RandomTransNormer {
  const config = { ...TRANSNORMER_LLM, ...fields };
  const width = config.decoder_embed_dim as number;
  const mixer = (config.hidden_dim ?? width) as number;
  const heads = config.decoder_attention_heads as number;
  const glu = config.glu_dim as number;
  const inner = glu === -1 ? width : glu;
  const bias = config.bias === true;
  const make = tensorMaker(seed);
  make.matrix("model.embed_tokens.weight", config.vocab_size as number, width, 1);
  for (let i = 0; i < (config.decoder_layers as number); i++) {
    const prefix = `model.layers.${i}`;
    make.linear(`${prefix}.token_mixer.qkvu_proj`, 4 * mixer, width, bias);
    make.linear(`${prefix}.token_mixer.out_proj`, width, mixer, bias);
    if ((config.linear_use_lrpe_list as number[] | undefined)?.[i] === 1) {
      make.vector(`${prefix}.token_mixer.lrpe.theta`, [heads, 1, mixer / heads], 0.4, 0.5);
    }
    make.linear(`${prefix}.channel_mixer.l1`, inner, width, bias);
    make.linear(`${prefix}.channel_mixer.l2`, inner, width, bias);
    make.linear(`${prefix}.channel_mixer.l3`, width, inner, bias);
  }
  if (config.tie_word_embeddings === false) make.matrix("lm_head.weight", config.vocab_size as number, width);
  return { config, tensors: make.tensors };
}

/** Its tensors in f64. */
export function oracleTensors({ tensors }: RandomTransNormer): Map<string, Float64Array> {
  return new Map([...tensors].map(([name, { data }]) => [name, Float64Array.from(data)]));
}

/** Writes it to a folder of its own, loads it, and removes the folder. */
export async function loadRandomTransNormer(
  gpu: Gpu,
  { config, tensors }: RandomTransNormer,
  dtype: "f16" | "f32" = "f32",
): Promise<Model> {
  const directory = await Deno.makeTempDir({ prefix: "transnormer" });
  try {
    await writeCheckpoint(directory, config, tensors);
    return await loadModel(gpu, directory, { dtype });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
