// TransNormer and TransNormerLLM from config.json and tensors to logits, naively and in f64.

import { activationOracle, gatherRowsOracle, linearOracle, normRowsOracle } from "./linear.ts";
import type { Activation } from "../../wgsl/activations.ts";
import {
  type AttentionOracle,
  diagAttentionOracle,
  FEATURES,
  linearAttentionOracle,
  linearSums,
  normedRows,
  reflectFirst,
  rotateConcat,
  type RotateHead,
  rotatePairs,
  type Rows,
  slopesOracle,
  softmaxAttentionOracle,
} from "./transnormer_attention.ts";

/** Fields of `config.json`. */
export type Fields = Readonly<Record<string, unknown>>;
/** Tensors by their names in a checkpoint. */
export type Tensors = ReadonlyMap<string, Float64Array>;

/** What a model makes of tokens. */
export interface ModelOutput {
  /** [tokens, vocabulary]. */
  readonly logits: Float64Array;
  /** What the head reads, [tokens, width]. */
  readonly hidden: Float64Array;
}

const flat = (rows: Rows): Float64Array => Float64Array.from(rows.flatMap((row) => [...row]));

const sum = (a: Rows, b: Rows): Float64Array[] => a.map((row, t) => row.map((x, i) => x + b[t][i]));

/** Rows times a weight's rows, plus the bias where there is one. */
function linear(tensors: Tensors, name: string, rows: Rows): Float64Array[] {
  const weight = tensors.get(`${name}.weight`);
  if (!weight) throw new Error(`The oracle has no tensor ${name}.weight`);
  const bias = tensors.get(`${name}.bias`);
  return rows.map((row) => {
    const n = weight.length / row.length;
    const out = linearOracle(row, weight, { rows: 1, k: row.length, n });
    return bias ? out.map((x, i) => x + bias[i]) : out;
  });
}

function gated(tensors: Tensors, prefix: string, rows: Rows, activation: Activation): Float64Array[] {
  const [gate, up] = ["l1", "l2"].map((name) => linear(tensors, `${prefix}.${name}`, rows));
  const product = gate.map((row, t) => row.map((x, i) => activationOracle(activation, x) * up[t][i]));
  return linear(tensors, `${prefix}.l3`, product);
}

function embedded(table: Float64Array, ids: readonly number[], width: number, scale: number): Float64Array[] {
  return ids.map((id) => gatherRowsOracle(table, [id], width).map((x) => scale * x));
}

function output(rows: Rows, table: Float64Array): ModelOutput {
  const [hidden, k] = [flat(rows), rows[0].length];
  const logits = linearOracle(hidden, table, { rows: rows.length, k, n: table.length / k });
  return { logits, hidden };
}

/** A TransNormer; fields that are absent mean what they mean to the loader. */
export function transNormerOracle(config: Fields, tensors: Tensors, ids: readonly number[]): ModelOutput {
  const field = <T>(name: string, fallback: T): T => (config[name] ?? fallback) as T;
  const width = config.hidden_size as number;
  const heads = config.num_attention_heads as number;
  const kvHeads = field("num_key_value_heads", heads);
  const headSize = field("head_dim", width / heads);
  const causal = field("causal", true);
  const pad = config.pad_token_id;
  const pads = causal ? [] : ids.map((id) => id === pad);
  const additive = config.norm_eps_placement === "additive";
  const epsilon = field("norm_eps", additive ? 1e-8 : 1e-6);

  const norm = (rows: Rows, name: string): Float64Array[] => {
    const kind = config.norm_type === "layernorm" ? "layer" : "rms";
    const [weight, bias] = ["weight", "bias"].map((part) => tensors.get(`${name}.${part}`));
    return normedRows(rows, { kind, epsilon, additive, ...(weight && { weight }), ...(bias && { bias }) });
  };

  const rotation = (prefix: string): RotateHead | undefined => {
    const layout = field<"interleaved" | "half" | "none">("rope_layout", "interleaved");
    if (layout === "none") return undefined;
    const base = field("rope_theta", 10000);
    const thetas = tensors.get(`${prefix}.rope.theta`) ??
      Float64Array.from({ length: headSize / 2 }, (_, i) => base ** (-2 * i / headSize));
    const v = tensors.get(`${prefix}.rope.householder`);
    return v ? reflectFirst(v, rotatePairs(layout, thetas)) : rotatePairs(layout, thetas);
  };

  const attention = (kind: string, prefix: string, rows: Rows): Float64Array[] => {
    const [q, k, v] = ["q_proj", "k_proj", "v_proj"].map((name) =>
      linear(tensors, `${prefix}.${name}`, rows)
    );
    const qkv = { q, k, v };
    const rotate = rotation(prefix);
    const plain: AttentionOracle = { heads, kvHeads, causal, pads };
    const spec = { ...plain, ...(rotate ? { rotate } : {}) };
    const map = FEATURES[field("norm_feature_map", "1+elu")];
    const srms = (sums: Rows) => normedRows(sums, { kind: "rms", epsilon, additive });
    const values = (): Float64Array[] => {
      if (kind === "softmax") return softmaxAttentionOracle(qkv, spec);
      if (kind === "linear") {
        const rotatedDenominator = field("denominator_rope", false);
        return linearAttentionOracle(qkv, { ...spec, map }, { rotatedDenominator, epsilon: 1e-10 });
      }
      if (kind === "diag") {
        const score = field<"softmax" | "relu">("diag_score", "softmax");
        const sums = diagAttentionOracle(qkv, config.diag_rope === "none" ? plain : spec, {
          block: field("diag_block_size", 64),
          score,
          scale: field("diag_scale", headSize ** -0.5),
        });
        return field("diag_output_norm", score === "relu") ? srms(sums) : sums;
      }
      const sums = linearSums(qkv, { ...spec, map });
      const name = field<string>("norm_output_norm", "simplermsnorm_all_heads");
      if (name === "none") return sums;
      return normedRows(sums, {
        kind: name.startsWith("layer") ? "layer" : "rms",
        epsilon,
        additive,
        groups: name.endsWith("per_head") ? heads : 1,
      });
    };
    return linear(tensors, `${prefix}.o_proj`, values());
  };

  const activations: Record<string, Activation> = { swish: "silu", none: "identity", gelu_new: "geluTanh" };
  const act = field("ffn_act", "swish");
  const activation = activations[act] ?? act as Activation;
  const scaled = config.scale_embedding ?? config.embedding_scale !== undefined;
  const scale = scaled ? field("embedding_scale", Math.sqrt(width)) : 1;
  const table = tensors.get("model.embed_tokens.weight")!;
  let x = embedded(table, ids, width, scale);

  const offset = field("position_offset", typeof pad === "number" ? pad + 1 : 0);
  if (config.position_embedding === "learned") {
    const learned = tensors.get("model.embed_positions.weight")!;
    x = sum(x, embedded(learned, ids.map((_, t) => t + offset), width, 1));
  }
  if (config.position_embedding === "sinusoidal") {
    const half = Math.floor(width / 2);
    x = x.map((row, t) =>
      row.map((value, c) => {
        const angle = (t + offset) * Math.exp(-Math.log(10000) * (c % half) / (half - 1));
        return value + (c >= 2 * half ? 0 : c < half ? Math.sin(angle) : Math.cos(angle));
      })
    );
  }
  if (config.embedding_norm === "layernorm") {
    const [weight, bias] = ["weight", "bias"].map((part) => tensors.get(`model.embed_norm.${part}`)!);
    x = normedRows(x, { kind: "layer", epsilon: field("embedding_norm_eps", 1e-5), weight, bias });
  }

  const preNorm = field("pre_norm", true);
  for (const [i, kind] of (config.layer_types as string[]).entries()) {
    const prefix = `model.layers.${i}`;
    const mixer = (rows: Rows): Float64Array[] =>
      kind === "parallel"
        ? sum(
          attention("diag", `${prefix}.attn_diag`, rows),
          attention("norm", `${prefix}.attn_norm`, rows),
        )
        : attention(kind, `${prefix}.attn`, rows);
    const feed = (rows: Rows) => gated(tensors, `${prefix}.ffn`, rows, activation);
    for (
      const [inner, name] of [[mixer, "input_layernorm"], [feed, "post_attention_layernorm"]] as const
    ) {
      x = preNorm ? sum(x, inner(norm(x, `${prefix}.${name}`))) : norm(sum(x, inner(x)), `${prefix}.${name}`);
    }
  }
  if (field("final_norm", preNorm)) x = norm(x, "model.norm");
  return output(x, tensors.get("lm_head.weight") ?? table);
}

/** A TransNormerLLM. */
export function transNormerLlmOracle(config: Fields, tensors: Tensors, ids: readonly number[]): ModelOutput {
  const width = config.decoder_embed_dim as number;
  const mixerWidth = (config.hidden_dim ?? width) as number;
  const heads = config.decoder_attention_heads as number;
  const layers = config.decoder_layers as number;
  const lrpe = (config.linear_use_lrpe_list ?? []) as number[];
  const epsilon = (config.norm_eps ?? 1e-6) as number;
  const norm = (rows: Rows) =>
    rows.map((row) => normRowsOracle(row, { rows: 1, width: row.length, kind: "rms", epsilon }));
  const table = tensors.get("model.embed_tokens.weight")!;
  let x = embedded(table, ids, width, config.no_scale_embedding ? 1 : Math.sqrt(width));
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    const all = linear(tensors, `${prefix}.token_mixer.qkvu_proj`, norm(x));
    const part = (i: number) => all.map((row) => row.slice(i * mixerWidth, (i + 1) * mixerWidth));
    const thetas = tensors.get(`${prefix}.token_mixer.lrpe.theta`) ??
      Float64Array.from({ length: mixerWidth }, (_, j) => 10000 ** (-2 * j / mixerWidth));
    const factor = layers === 1 ? 1 + 1e-5 : 1 - layer / (layers - 1) + 1e-5;
    const sums = linearSums(
      { q: part(0), k: part(1), v: part(2) },
      {
        heads,
        causal: true,
        map: FEATURES[(config.linear_act_fun ?? "silu") as string],
        ...((lrpe.length === 0 ? layer === 0 : lrpe[layer] === 1) ? { rotate: rotateConcat(thetas) } : {}),
      },
      slopesOracle(heads).map((slope) => Math.exp(-slope * factor)),
    );
    const gates = part(3);
    const mixed = norm(sums).map((row, t) => row.map((value, i) => value * gates[t][i]));
    x = sum(x, linear(tensors, `${prefix}.token_mixer.out_proj`, mixed));
    x = sum(x, gated(tensors, `${prefix}.channel_mixer`, norm(x), "identity"));
  }
  return output(norm(x), tensors.get("lm_head.weight") ?? table);
}
