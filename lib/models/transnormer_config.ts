// config.json of a TransNormer (Qin et al. 2022, arXiv:2210.10340) and of models that mix its layers with others.

import type { ops } from "../layers/mod.ts";
import type { ConfigReader } from "./architecture.ts";
import { checkHeadSize, checkLimits, headSizeOf } from "./sizes.ts";
import { ACTIVATIONS, OUTPUT_NORMS, readFeatureMap } from "./transnormer_words.ts";

/** What a layer's attention is: `parallel` has a diagonal and a norm branch side by side. */
export type TransNormerLayer = "diag" | "norm" | "parallel" | "linear" | "softmax";

const LAYERS: readonly TransNormerLayer[] = ["diag", "norm", "parallel", "linear", "softmax"];

/** A norm of the residual stream. */
export interface TransNormerNorm {
  /** `rms` divides by the root mean square, `layer` takes the mean off before. */
  readonly kind: "rms" | "layer";
  /** Whether it has parameters. */
  readonly affine: boolean;
  /** Keeps the divisor from zero. */
  readonly epsilon: number;
  /** Whether that is added under the root or to it. */
  readonly epsilonPlacement: "inside" | "additive";
}

/** Sizes and choices of a TransNormer. */
export interface TransNormerConfig {
  /** Token ids. */
  readonly vocabularySize: number;
  /** Width of hidden states. */
  readonly hiddenSize: number;
  /** Width of the feed-forward layer. */
  readonly intermediateSize: number;
  /** Attention of each block. */
  readonly layers: readonly TransNormerLayer[];
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Components of a head. */
  readonly headSize: number;
  /** Positions the model was made for. */
  readonly contextLength: number;
  /** Whether the head shares the embedding's table. */
  readonly tied: boolean;
  /** Whether a row sees only itself and earlier ones. */
  readonly causal: boolean;
  /** Token whose rows are no keys, in a bidirectional model. */
  readonly padToken?: number;
  /** Factor of embeddings. */
  readonly embeddingScale?: number;
  /** Epsilon of a LayerNorm of the embeddings. */
  readonly embeddingNorm?: number;
  /** Embeddings of positions, and what the first position counts as. */
  readonly positions: { readonly kind: "none" | "sinusoidal" | "learned"; readonly offset: number };
  /** Norm of the blocks. */
  readonly norm: TransNormerNorm;
  /** Whether sublayers are normed before, and not after the residual sum. */
  readonly preNorm: boolean;
  /** Whether the last hidden states are normed. */
  readonly finalNorm: boolean;
  /** Biases of the attention's projections. */
  readonly attentionBias: boolean;
  /** The feed-forward layer. */
  readonly feedForward: { readonly activation: ops.Activation; readonly bias: boolean };
  /** Rotation of features. */
  readonly rope: {
    readonly layout: "interleaved" | "half" | "none";
    readonly theta: number;
    /** Whether angles are tensors of the checkpoint. */
    readonly trained: boolean;
    /** Whether a Householder reflection comes before. */
    readonly householder: boolean;
  };
  /** Diagonal layers. */
  readonly diag: {
    readonly block: number;
    readonly score: "softmax" | "relu";
    readonly scale: number;
    readonly outputNorm: boolean;
    readonly rotates: boolean;
  };
  /** Layers of linear attention. */
  readonly linear: {
    readonly featureMap: ops.FeatureMap;
    /** What NormAttention puts in place of a denominator. */
    readonly outputNorm: "rms" | "layer" | "none";
    /** Whether that is by head. */
    readonly perHead: boolean;
    /** Whether the denominator of `linear` layers takes rotated features. */
    readonly denominatorRotary: boolean;
    /** Added to the denominator. */
    readonly denominatorEpsilon?: number;
  };
}

function readLayers(config: ConfigReader): TransNormerLayer[] {
  const count = config.integer("num_hidden_layers");
  const layers = config.fields.layer_types;
  const known = (layer: unknown): layer is TransNormerLayer => LAYERS.includes(layer as TransNormerLayer);
  if (!Array.isArray(layers) || !layers.every(known)) {
    throw new TypeError(
      `${config.path}: layer_types must be a list of ${LAYERS.join(", ")}: current value is ${
        JSON.stringify(layers)
      }`,
    );
  }
  if (layers.length !== count) {
    throw new RangeError(
      `${config.path}: layer_types names ${layers.length} layers, num_hidden_layers is ${count}`,
    );
  }
  return layers;
}

function readNorm(config: ConfigReader): TransNormerNorm {
  const type = config.word("norm_type", ["simplermsnorm", "rmsnorm", "layernorm"], "simplermsnorm");
  const additive =
    config.word("norm_eps_placement", ["inside_sqrt", "additive"], "inside_sqrt") === "additive";
  return {
    kind: type === "layernorm" ? "layer" : "rms",
    affine: config.flag("norm_affine", type !== "simplermsnorm"),
    epsilon: config.positive("norm_eps", additive ? 1e-8 : 1e-6),
    epsilonPlacement: additive ? "additive" : "inside",
  };
}

function readScale(config: ConfigReader, hiddenSize: number): number | undefined {
  const given = config.fields.embedding_scale != null;
  if (!config.flag("scale_embedding", given)) {
    config.refuse("embedding_scale", [1], "scale_embedding is false");
    return undefined;
  }
  const scale = config.positive("embedding_scale", Math.sqrt(hiddenSize));
  return scale === 1 ? undefined : scale;
}

function readLinear(config: ConfigReader, layers: readonly TransNormerLayer[]): TransNormerConfig["linear"] {
  const has = (...kinds: TransNormerLayer[]) => layers.some((layer) => kinds.includes(layer));
  const normed = has("norm", "parallel");
  const denominator = config.flag("norm_denominator", has("linear"));
  const norm = OUTPUT_NORMS[
    config.word(
      "norm_output_norm",
      Object.keys(OUTPUT_NORMS),
      normed ? "simplermsnorm_all_heads" : "none",
    )
  ];
  const contradiction = denominator && normed && !has("linear")
    ? "norm_denominator is true, but layers of type norm have a norm in place of it: name them linear"
    : !denominator && has("linear") && !normed
    ? "norm_denominator is false, but layers of type linear have one: name them norm"
    : !normed && has("linear") && norm.outputNorm !== "none"
    ? "norm_output_norm must be none for layers of type linear, which have a denominator in place of it"
    : undefined;
  if (contradiction) throw new TypeError(`${config.path}: ${contradiction}`);
  config.refuse("norm_scale", [1], "NormAttention is computed without a scale");
  const t1 = config.fields.variant === "t1";
  return {
    featureMap: readFeatureMap(config, "norm_feature_map", t1 ? "elu" : "1+elu"),
    ...norm,
    denominatorRotary: config.flag("denominator_rope", false),
    ...(config.fields.norm_denominator_eps == null
      ? {}
      : { denominatorEpsilon: config.positive("norm_denominator_eps") }),
  };
}

function readDiag(config: ConfigReader, headSize: number): TransNormerConfig["diag"] {
  const score = config.word(
    "diag_score",
    ["softmax", "relu"],
    config.fields.variant === "t1" ? "relu" : "softmax",
  );
  const block = config.integer("diag_block_size", 64);
  if (block > 1024) {
    throw new RangeError(`${config.path}: diag_block_size is ${block}, at most 1024 is supported`);
  }
  return {
    block,
    score,
    scale: config.positive("diag_scale", 1 / Math.sqrt(headSize)),
    outputNorm: config.flag("diag_output_norm", score === "relu"),
    rotates: config.word("diag_rope", ["per_block_restart", "none"], "per_block_restart") !== "none",
  };
}

function readRope(config: ConfigReader, layers: readonly TransNormerLayer[]): TransNormerConfig["rope"] {
  config.word("rope_order", ["after_feature_map"], "after_feature_map");
  config.refuse("rope_scaling", [], "scaled rotations are not computed for TransNormer yet");
  const rope = {
    layout: config.word("rope_layout", ["interleaved", "half", "none"], "interleaved"),
    theta: config.positive("rope_theta", 10000),
    trained: config.flag("rope_trainable", false),
    householder: config.word("rope_projection", ["identity", "householder"], "identity") === "householder",
  };
  if ((rope.trained || rope.householder) && (rope.layout === "none" || layers.includes("softmax"))) {
    throw new TypeError(
      `${config.path}: rope_trainable and rope_projection householder are computed for rotated features only, not with ` +
        "rope_layout none or layers of type softmax",
    );
  }
  return rope;
}

/**
 * Reads a TransNormer's `config.json`.
 *
 * @throws {TypeError} when a field is malformed, or asks for something that is not computed.
 * @throws {RangeError} when sizes do not fit together.
 */
export function transNormerConfig(config: ConfigReader): TransNormerConfig {
  config.refuse("quantization_config", [], "quantised weights are not read yet: use F16, BF16 or F32");
  config.refuse("sliding_window", [], "sliding windows are not computed yet");
  config.word("ffn_type", ["glu"], "glu");
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
  const layers = readLayers(config);
  const vocabularySize = config.integer("vocab_size");
  const contextLength = config.integer("max_position_embeddings", 2048);
  checkLimits(config, {
    layers: ["num_hidden_layers", layers.length],
    ids: ["vocab_size", vocabularySize],
    positions: ["max_position_embeddings", contextLength],
  });
  const causal = config.flag("causal", true);
  if (!causal && layers.includes("softmax")) {
    throw new TypeError(
      `${config.path}: causal is false, but layers of type softmax are computed causal only`,
    );
  }
  const [padToken] = config.ids("pad_token_id");
  const embeddingScale = readScale(config, hiddenSize);
  const preNorm = config.flag("pre_norm", true);
  return {
    vocabularySize,
    hiddenSize,
    intermediateSize: config.integer("intermediate_size", Math.floor(8 / 3 * hiddenSize)),
    layers,
    heads,
    kvHeads,
    headSize,
    contextLength,
    tied: config.flag("tie_word_embeddings", true),
    causal,
    ...(padToken === undefined || causal ? {} : { padToken }),
    ...(embeddingScale === undefined ? {} : { embeddingScale }),
    ...(config.word("embedding_norm", ["none", "layernorm"], "none") === "none"
      ? {}
      : { embeddingNorm: config.positive("embedding_norm_eps", 1e-5) }),
    positions: {
      kind: config.word("position_embedding", ["none", "sinusoidal", "learned"], "none"),
      offset: config.integer("position_offset", padToken === undefined ? 0 : padToken + 1, 0),
    },
    norm: readNorm(config),
    preNorm,
    finalNorm: config.flag("final_norm", preNorm),
    attentionBias: config.flag("attention_bias", true),
    feedForward: {
      activation: ACTIVATIONS[config.word("ffn_act", Object.keys(ACTIVATIONS), "swish")],
      bias: config.flag("ffn_bias", true),
    },
    rope: readRope(config, layers),
    diag: readDiag(config, headSize),
    linear: readLinear(config, layers),
  };
}
