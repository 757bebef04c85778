// TransNormerLLM (Qin et al. 2023, arXiv:2307.14995; 2024, arXiv:2405.17381) as its released checkpoints have it: lightning
// attention with a decay by head and layer, an output gate, bilinear feed-forward layers, SimpleRMSNorm throughout.

import type { StorageType } from "../../wgsl/kernel.ts";
import { angleTurns } from "../../wgsl/turns.ts";
import {
  attention,
  type AttentionWeights,
  embedding,
  glu,
  type Hidden,
  type Layer,
  lmHead,
  type Logits,
  type ops,
  pipe,
  residual,
  rmsNorm,
  type TokenIds,
  type WeightView,
  whole,
} from "../layers/mod.ts";
import { alibiDecays, alibiSlopes } from "../transforms/linear_attention/decays.ts";
import { lightningAttention } from "../transforms/linear_attention/lightning_attention.ts";
import type { RotationOption } from "../transforms/linear_attention/rotation.ts";
import { type Architecture, type ConfigReader, modelConfig } from "./architecture.ts";
import { checkHeadSize, checkLimits, headSizeOf } from "./sizes.ts";
import { readFeatureMap } from "./transnormer_words.ts";
import { ranges, tensorOf, type WeightList, weightList } from "./weight_list.ts";

/** Sizes and choices of a TransNormerLLM. */
export interface TransNormerLlmConfig {
  /** Token ids. */
  readonly vocabularySize: number;
  /** Width of hidden states, `decoder_embed_dim`. */
  readonly hiddenSize: number;
  /** Width of queries, keys, values and gate, `hidden_dim`. */
  readonly mixerSize: number;
  /** Width of the feed-forward layer. */
  readonly intermediateSize: number;
  /** Number of blocks. */
  readonly layers: number;
  /** Heads. */
  readonly heads: number;
  /** Components of a head. */
  readonly headSize: number;
  /** Feature map of queries and keys. */
  readonly featureMap: ops.FeatureMap;
  /** Which layers rotate their features (LRPE). */
  readonly rotates: readonly boolean[];
  /** Base of the angles where a checkpoint has none. */
  readonly rotationBase: number;
  /** Decay rate by head in the first layer. */
  readonly slopes: readonly number[];
  /** Added to the mean of squares in norms. */
  readonly epsilon: number;
  /** Whether linears have biases. */
  readonly bias: boolean;
  /** Whether embeddings are multiplied by the root of their width. */
  readonly scalesEmbedding: boolean;
  /** Whether the head shares the embedding's table. */
  readonly tied: boolean;
  /** Positions the model was made for. */
  readonly contextLength: number;
}

/** Log decays of a layer, as released, with the slopes of the config. */
export function logDecaysOf({ heads, slopes, layers }: TransNormerLlmConfig, layer: number): number[] {
  return alibiDecays(heads, layer, layers, slopes);
}

/** A list of numbers of a given length, or none. */
function numbers(config: ConfigReader, name: string, length: number, why: string): number[] | undefined {
  const list = config.fields[name];
  if (list === undefined || list === null) return undefined;
  if (
    !Array.isArray(list) || list.length !== length ||
    !list.every((value) => Number.isFinite(value) && value >= 0)
  ) {
    throw new TypeError(
      `${config.path}: ${name} must be a list of ${length} numbers from 0 on, ${why}: current value is ` +
        JSON.stringify(list),
    );
  }
  return list;
}

/**
 * Reads a TransNormerLLM's `config.json`.
 *
 * @throws {TypeError} when a field is malformed, or asks for something that is not computed.
 * @throws {RangeError} when sizes do not fit together.
 */
export function transNormerLlmConfig(config: ConfigReader): TransNormerLlmConfig {
  config.refuse("quantization_config", [], "quantised weights are not read yet: use F16, BF16 or F32");
  config.refuse("gate_dim", [], "low-rank gates (TransNormerLLM 3) are not computed yet");
  config.word("norm_type", ["simplermsnorm"], "simplermsnorm");
  config.word("norm_eps_placement", ["inside_sqrt"], "inside_sqrt");
  config.word("slope_formula", ["alibi_layer_scaled"], "alibi_layer_scaled");
  const hiddenSize = config.integer("decoder_embed_dim");
  const mixerSize = config.integer("hidden_dim", hiddenSize);
  const heads = config.integer("decoder_attention_heads");
  const headSize = headSizeOf(config, ["hidden_dim", mixerSize], ["decoder_attention_heads", heads]);
  checkHeadSize(config, headSize);
  const layers = config.integer("decoder_layers");
  const vocabularySize = config.integer("vocab_size");
  const contextLength = config.integer("model_max_length", config.integer("max_position_embeddings", 2048));
  checkLimits(config, {
    layers: ["decoder_layers", layers],
    ids: ["vocab_size", vocabularySize],
    positions: ["model_max_length", contextLength],
  });
  const lrpe = numbers(config, "linear_use_lrpe_list", layers, "0 or 1 for each layer");
  const width = config.integer("glu_dim", -1, -1);
  if (width === 0) {
    throw new RangeError(`${config.path}: glu_dim must be positive, or -1 for the width: it is 0`);
  }
  return {
    vocabularySize,
    hiddenSize,
    mixerSize,
    intermediateSize: width === -1 ? hiddenSize : width,
    layers,
    heads,
    headSize,
    featureMap: readFeatureMap(config, "linear_act_fun", "silu"),
    // As released: the first layer alone.
    rotates: Array.from({ length: layers }, (_, i) => lrpe ? lrpe[i] === 1 : i === 0),
    rotationBase: config.positive("lrpe_base", 10000),
    slopes: numbers(config, "slopes", heads, "one for each head") ?? alibiSlopes(heads),
    epsilon: config.positive("norm_eps", 1e-6),
    bias: config.flag("bias", false),
    scalesEmbedding: !config.flag("no_scale_embedding", false),
    tied: config.flag("tie_word_embeddings", true),
    contextLength,
  };
}

/** Features [x cos(t θ) | x sin(t θ)]: θ by head and component, trained, or base^(-2j/d) over the components of all heads. */
function rotationOf(config: TransNormerLlmConfig, list: WeightList, prefix: string): RotationOption {
  const { heads, headSize, mixerSize, rotationBase } = config;
  const thetas = Float32Array.from({ length: mixerSize }, (_, j) => rotationBase ** (-2 * j / mixerSize));
  const turns = list.made(`${prefix}.lrpe.turns`, mixerSize, 2, {
    ...tensorOf(`${prefix}.lrpe.theta`, heads, 1, headSize),
    convert: (values) => angleTurns([...values]),
    fallback: thetas,
  });
  return { layout: "concat", thetas: turns, perHead: true };
}

function mixer(config: TransNormerLlmConfig, list: WeightList, index: number): Layer<Hidden, Hidden> {
  const { hiddenSize, mixerSize, heads, headSize, featureMap, epsilon, bias } = config;
  const prefix = `model.layers.${index}.token_mixer`;
  const sizes = [mixerSize, mixerSize, mixerSize, mixerSize];
  const matrix = list.matrix(`${prefix}.qkvu_proj`, hiddenSize, [
    tensorOf(`${prefix}.qkvu_proj.weight`, 4 * mixerSize, hiddenSize),
  ]);
  const out = list.matrix(`${prefix}.out_proj`, mixerSize, [
    tensorOf(`${prefix}.out_proj.weight`, hiddenSize, mixerSize),
  ]);
  const named = ([query, key, value, outputGate]: WeightView[], output: WeightView) => ({
    query,
    key,
    value,
    outputGate,
    output,
  });
  let weights: AttentionWeights = named(ranges(matrix, sizes), whole(out));
  if (bias) {
    const row = list.row(`${prefix}.qkvu_proj.bias`, [tensorOf(`${prefix}.qkvu_proj.bias`, 4 * mixerSize)]);
    const outRow = list.row(`${prefix}.out_proj.bias`, [tensorOf(`${prefix}.out_proj.bias`, hiddenSize)]);
    weights = { ...weights, biases: named(ranges(row, sizes), ranges(outRow, [hiddenSize])[0]) };
  }
  return attention({
    heads,
    kvHeads: heads,
    headSize,
    weights,
    core: lightningAttention({
      featureMap,
      logDecays: logDecaysOf(config, index),
      epsilon,
      ...(config.rotates[index] ? { rotation: rotationOf(config, list, prefix) } : {}),
    }),
  });
}

function channelMixer(config: TransNormerLlmConfig, list: WeightList, index: number): Layer<Hidden, Hidden> {
  const { hiddenSize, intermediateSize: width, bias } = config;
  const prefix = `model.layers.${index}.channel_mixer`;
  const pair = [`${prefix}.l1`, `${prefix}.l2`];
  const matrix = list.matrix(
    `${prefix}.l1_l2`,
    hiddenSize,
    pair.map((name) => tensorOf(`${name}.weight`, width, hiddenSize)),
  );
  const [gate, up] = ranges(matrix, [width, width]);
  const down = whole(
    list.matrix(`${prefix}.l3`, width, [tensorOf(`${prefix}.l3.weight`, hiddenSize, width)]),
  );
  if (!bias) return glu({ gate, up, down, activation: "identity" });
  const row = list.row(`${prefix}.l1_l2.bias`, pair.map((name) => tensorOf(`${name}.bias`, width)));
  const [gateBias, upBias] = ranges(row, [width, width]);
  const [downBias] = ranges(list.row(`${prefix}.l3.bias`, [tensorOf(`${prefix}.l3.bias`, hiddenSize)]), [
    hiddenSize,
  ]);
  return glu({
    gate,
    up,
    down,
    biases: { gate: gateBias, up: upBias, down: downBias },
    activation: "identity",
  });
}

/** The pipeline of a TransNormerLLM, and the weights that it names in `list`. */
export function transNormerLlm(config: TransNormerLlmConfig, list: WeightList): Layer<TokenIds, Logits> {
  const { vocabularySize, hiddenSize, layers, epsilon, scalesEmbedding, tied } = config;
  const [embed, head] = ["model.embed_tokens.weight", "lm_head.weight"];
  const shape = [vocabularySize, hiddenSize];
  const table = list.matrix("embed_tokens", hiddenSize, [{ names: tied ? [embed, head] : [embed], shape }]);
  const blocks = Array.from({ length: layers }, (_, i) =>
    pipe(
      residual(pipe(rmsNorm(undefined, epsilon), mixer(config, list, i))),
      residual(pipe(rmsNorm(undefined, epsilon), channelMixer(config, list, i))),
    ));
  // A head of its own may be left out of the checkpoint where it is the table all the same.
  const own = tied ? table : list.matrix("lm_head", hiddenSize, [{ names: [head, embed], shape }]);
  return pipe(
    embedding(table, scalesEmbedding ? Math.sqrt(hiddenSize) : undefined),
    ...blocks,
    rmsNorm(undefined, epsilon),
    lmHead(own),
  );
}

/** `model_type: "transnormer"` with `decoder_layers`. */
export function transNormerLlmArchitecture(reader: ConfigReader, dtype: StorageType): Architecture {
  const config = transNormerLlmConfig(reader);
  const list = weightList(dtype);
  const pipeline = transNormerLlm(config, list);
  return {
    config: modelConfig("transnormer", config, reader),
    sources: list.sources,
    // A tied head may be stored once more, and slopes as a buffer.
    harmless: config.tied ? /^lm_head\.weight$|\.slopes?$/ : /\.slopes?$/,
    pipeline,
  };
}
