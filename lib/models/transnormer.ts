// TransNormer (Qin et al. 2022, arXiv:2210.10340): attention in blocks in the early layers, linear attention with a norm in
// place of its denominator in the late ones, gated feed-forward layers.

import type { StorageType } from "../../wgsl/kernel.ts";
import { angleTurns } from "../../wgsl/turns.ts";
import {
  attention,
  type AttentionWeights,
  type Core,
  embedding,
  glu,
  type Hidden,
  type Layer,
  layerNorm,
  learnedPositions,
  lmHead,
  type Logits,
  parallel,
  pipe,
  residual,
  rmsNorm,
  type Rotary,
  rotaryEmbedding,
  rotaryFrequencies,
  sinusoidalPositions,
  softmaxCore,
  type TokenIds,
  type Weight,
  whole,
} from "../layers/mod.ts";
import { diagAttention } from "../transforms/linear_attention/diag_attention.ts";
import { linearAttention } from "../transforms/linear_attention/linear_core.ts";
import { normAttention } from "../transforms/linear_attention/norm_attention.ts";
import type { RotationOption } from "../transforms/linear_attention/rotation.ts";
import { type Architecture, type ConfigReader, modelConfig } from "./architecture.ts";
import { type TransNormerConfig, transNormerConfig, type TransNormerLayer } from "./transnormer_config.ts";
import { ranges, tensorOf, type WeightList, weightList } from "./weight_list.ts";

type Block = Layer<Hidden, Hidden>;

/** A norm with the parameters that it has, named as Llama's are. */
function norm({ norm, hiddenSize }: TransNormerConfig, list: WeightList, name: string): Block {
  const { kind, affine, epsilon, epsilonPlacement } = norm;
  const row = (part: string) => list.row(`${name}.${part}`, [tensorOf(`${name}.${part}`, hiddenSize)]);
  const weight = affine ? row("weight") : undefined;
  if (kind === "rms") return rmsNorm(weight, epsilon, epsilonPlacement);
  return layerNorm({ ...(weight ? { weight, bias: row("bias") } : {}), epsilon, epsilonPlacement });
}

/** Projections of an attention layer or branch. */
function projections(config: TransNormerConfig, list: WeightList, prefix: string): AttentionWeights {
  const { hiddenSize, heads, kvHeads, headSize, attentionBias } = config;
  const sizes = [heads * headSize, kvHeads * headSize, kvHeads * headSize];
  const names = ["q_proj", "k_proj", "v_proj"].map((name) => `${prefix}.${name}`);
  const matrix = list.matrix(
    `${prefix}.qkv_proj`,
    hiddenSize,
    names.map((name, i) => tensorOf(`${name}.weight`, sizes[i], hiddenSize)),
  );
  const output = list.matrix(`${prefix}.o_proj`, heads * headSize, [
    tensorOf(`${prefix}.o_proj.weight`, hiddenSize, heads * headSize),
  ]);
  const [query, key, value] = ranges(matrix, sizes);
  if (!attentionBias) return { query, key, value, output: whole(output) };
  const row = list.row(`${prefix}.qkv_proj.bias`, names.map((name, i) => tensorOf(`${name}.bias`, sizes[i])));
  const outputRow = list.row(`${prefix}.o_proj.bias`, [tensorOf(`${prefix}.o_proj.bias`, hiddenSize)]);
  const biases = ranges(row, sizes);
  return {
    query,
    key,
    value,
    output: whole(output),
    biases: {
      query: biases[0],
      key: biases[1],
      value: biases[2],
      output: { weight: outputRow, first: 0, rows: hiddenSize },
    },
  };
}

/** The layer's rotary embedding, where its angles are fixed and nothing comes before it. */
function rotaryOf({ rope, headSize, contextLength }: TransNormerConfig): Rotary | undefined {
  const { layout, theta, trained, householder } = rope;
  if (layout === "none" || trained || householder) return undefined;
  return rotaryEmbedding({ theta, size: headSize, positions: contextLength, layout });
}

/** Rotation by tensors of the checkpoint; undefined where the layer's rotary embedding is meant. */
function rotationOf(
  { rope, headSize }: TransNormerConfig,
  list: WeightList,
  prefix: string,
): RotationOption | undefined {
  const { layout, theta, trained, householder } = rope;
  if (layout === "none") return "none";
  if (!trained && !householder) return undefined;
  const thetas = rotaryFrequencies({ theta, size: headSize, positions: 1 });
  const name = `${prefix}.rope`;
  const turns = (): Weight =>
    list.made(`${name}.turns`, thetas.length, 2, {
      ...tensorOf(`${name}.theta`, thetas.length),
      convert: (values) => angleTurns([...values]),
      fallback: Float32Array.from(thetas),
    });
  return {
    layout,
    thetas: trained ? turns() : thetas,
    ...(householder
      ? { householder: list.row(`${name}.householder`, [tensorOf(`${name}.householder`, headSize)]) }
      : {}),
  };
}

function coreOf(
  config: TransNormerConfig,
  kind: Exclude<TransNormerLayer, "parallel">,
  rotation: RotationOption | undefined,
): Core {
  const { causal, padToken, norm: { epsilon, epsilonPlacement }, diag, linear } = config;
  const shared = {
    causal,
    ...(rotation === undefined ? {} : { rotation }),
    ...(padToken === undefined ? {} : { padToken }),
  };
  switch (kind) {
    case "softmax":
      return softmaxCore();
    case "diag": {
      const { block, score, scale, rotates } = diag;
      return diagAttention({
        ...shared,
        ...(rotates ? {} : { rotation: "none" }),
        block,
        score,
        scale,
        outputNorm: { norm: diag.outputNorm ? "rms" : "none", epsilon, epsilonPlacement },
      });
    }
    case "norm": {
      const { featureMap, outputNorm, perHead } = linear;
      return normAttention({ ...shared, featureMap, norm: outputNorm, perHead, epsilon, epsilonPlacement });
    }
    case "linear": {
      const { featureMap, denominatorRotary, denominatorEpsilon } = linear;
      return linearAttention({
        ...shared,
        featureMap,
        denominatorRotary,
        ...(denominatorEpsilon === undefined ? {} : { epsilon: denominatorEpsilon }),
      });
    }
  }
}

function branch(
  config: TransNormerConfig,
  list: WeightList,
  kind: Exclude<TransNormerLayer, "parallel">,
  prefix: string,
): Block {
  const { heads, kvHeads, headSize, positions, contextLength } = config;
  const rotary = rotaryOf(config);
  const weights = projections(config, list, prefix);
  const core = coreOf(config, kind, rotationOf(config, list, prefix));
  return attention({
    heads,
    kvHeads,
    headSize,
    ...(rotary ? { rotary } : {}),
    weights,
    // Learned embeddings end where their table does.
    core: positions.kind === "learned" ? { ...core, longest: contextLength } : core,
  });
}

function feedForward(config: TransNormerConfig, list: WeightList, prefix: string): Block {
  const { hiddenSize, intermediateSize: width, feedForward: { activation, bias } } = config;
  const pair = [`${prefix}.l1`, `${prefix}.l2`];
  const gateUp = list.matrix(
    `${prefix}.l1_l2`,
    hiddenSize,
    pair.map((name) => tensorOf(`${name}.weight`, width, hiddenSize)),
  );
  const down = list.matrix(`${prefix}.l3`, width, [tensorOf(`${prefix}.l3.weight`, hiddenSize, width)]);
  const [gate, up] = ranges(gateUp, [width, width]);
  const weights = { gate, up, down: whole(down), activation };
  if (!bias) return glu(weights);
  const row = list.row(`${prefix}.l1_l2.bias`, pair.map((name) => tensorOf(`${name}.bias`, width)));
  const downRow = list.row(`${prefix}.l3.bias`, [tensorOf(`${prefix}.l3.bias`, hiddenSize)]);
  const [gateBias, upBias] = ranges(row, [width, width]);
  const downBias = { weight: downRow, first: 0, rows: hiddenSize };
  return glu({ ...weights, biases: { gate: gateBias, up: upBias, down: downBias } });
}

function block(config: TransNormerConfig, list: WeightList, index: number): Block {
  const prefix = `model.layers.${index}`;
  const kind = config.layers[index];
  const mixer = kind === "parallel"
    ? parallel(
      branch(config, list, "diag", `${prefix}.attn_diag`),
      branch(config, list, "norm", `${prefix}.attn_norm`),
    )
    : branch(config, list, kind, `${prefix}.attn`);
  const first = norm(config, list, `${prefix}.input_layernorm`);
  const second = norm(config, list, `${prefix}.post_attention_layernorm`);
  const feed = feedForward(config, list, `${prefix}.ffn`);
  return config.preNorm
    ? pipe(residual(pipe(first, mixer)), residual(pipe(second, feed)))
    : pipe(pipe(residual(mixer), first), pipe(residual(feed), second));
}

/** What comes before the blocks: embeddings of tokens and positions, and their norm. */
function embeddings(config: TransNormerConfig, list: WeightList, table: Weight): Layer<TokenIds, Hidden> {
  const { hiddenSize, contextLength, embeddingScale, embeddingNorm, positions: { kind, offset } } = config;
  const layers: Block[] = [];
  if (kind === "sinusoidal") layers.push(sinusoidalPositions(offset));
  if (kind === "learned") {
    const name = "model.embed_positions";
    const learned = list.matrix(name, hiddenSize, [
      tensorOf(`${name}.weight`, contextLength + offset, hiddenSize),
    ]);
    layers.push(learnedPositions(learned, offset));
  }
  if (embeddingNorm !== undefined) {
    const row = (part: string) =>
      list.row(`model.embed_norm.${part}`, [tensorOf(`model.embed_norm.${part}`, hiddenSize)]);
    layers.push(layerNorm({ weight: row("weight"), bias: row("bias"), epsilon: embeddingNorm }));
  }
  const tokens = embedding(table, embeddingScale);
  const [last, ...others] = layers.reverse();
  return last ? pipe(tokens, ...others.reverse(), last) : tokens;
}

/** The pipeline of a TransNormer, and the weights that it names in `list`. */
export function transNormer(config: TransNormerConfig, list: WeightList): Layer<TokenIds, Logits> {
  const { vocabularySize, hiddenSize, layers, tied, finalNorm } = config;
  const names = ["model.embed_tokens.weight", "lm_head.weight"];
  const shape = [vocabularySize, hiddenSize];
  // Tied checkpoints may store the one table under either name.
  const table = list.matrix("embed_tokens", hiddenSize, [{ names: tied ? names : names.slice(0, 1), shape }]);
  const start = embeddings(config, list, table);
  const blocks = layers.map((_, i) => block(config, list, i));
  if (finalNorm) blocks.push(norm(config, list, "model.norm"));
  const head = tied ? table : list.matrix("lm_head", hiddenSize, [tensorOf(names[1], ...shape)]);
  return pipe(start, ...blocks, lmHead(head));
}

/** `model_type: "transnormer"` with `layer_types`. */
export function transNormerArchitecture(reader: ConfigReader, dtype: StorageType): Architecture {
  const config = transNormerConfig(reader);
  const list = weightList(dtype);
  const pipeline = transNormer(config, list);
  return {
    config: modelConfig("transnormer", config, reader),
    sources: list.sources,
    harmless: config.tied ? /^lm_head\.weight$|rotary_emb\.inv_freq$/ : /rotary_emb\.inv_freq$/,
    pipeline,
  };
}
