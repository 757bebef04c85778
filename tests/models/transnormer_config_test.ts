// config.json of TransNormers and TransNormerLLMs: what is read, and what is refused by name.

import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { printLayers } from "../../lib/layers/mod.ts";
import {
  configReader,
  describeModel,
  loadModel,
  transNormerConfig,
  transNormerLlmConfig,
} from "../../lib/models/mod.ts";
import { logDecaysOf } from "../../lib/models/transnormer_llm.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { NOVEL_TRANSNORMER } from "../harness/models.ts";
import { randomTransNormerLlm } from "../harness/random_transnormer.ts";
import { safetensorsBytes } from "../harness/safetensors_writer.ts";
import { folder } from "../weights/crafted.ts";

const TRANSNORMER = {
  model_type: "transnormer",
  vocab_size: 100,
  hidden_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  layer_types: ["diag", "norm"],
};

const LLM = {
  model_type: "transnormer",
  vocab_size: 100,
  decoder_embed_dim: 64,
  decoder_layers: 2,
  decoder_attention_heads: 4,
};

async function assertRefused(base: object, cases: readonly [object, string][]): Promise<void> {
  for (const [fields, message] of cases) {
    await using place = await folder({ "config.json": JSON.stringify({ ...base, ...fields }) });
    const error = await assertRejects(
      () => describeModel(place.path),
      Error,
      message,
      JSON.stringify(fields),
    );
    assert(error.message.includes("config.json"), error.message);
  }
}

Deno.test("describeModel() reads the TransNormer that comes along", async () => {
  const model = await describeModel(NOVEL_TRANSNORMER, { dtype: "f32" });
  assertEquals(model.config, {
    modelType: "transnormer",
    vocabularySize: 4096,
    hiddenSize: 128,
    contextLength: 2048,
    eosIds: [0],
    bosId: 0,
  });
  assertEquals(model.warnings, []);
  const lines = printLayers(model.pipeline).split("\n").map((line) => line.trim());
  assertEquals(lines.filter((line) => line.includes("core: diag-attention")).length, 3);
  assertEquals(lines.filter((line) => line.includes("core: norm-attention")).length, 3);
  assertEquals(
    lines.filter((line) => line.startsWith("glu(") && line.includes("activation: silu")).length,
    6,
  );
});

Deno.test("transNormerConfig() has the choices of the paper where fields are absent", () => {
  const read = (fields: object) =>
    transNormerConfig(configReader("config.json", { ...TRANSNORMER, ...fields }));
  const { intermediateSize, attentionBias, feedForward, diag, linear, norm, positions, embeddingScale } =
    read({});
  assertEquals(intermediateSize, 170);
  assertEquals([attentionBias, feedForward], [true, { activation: "silu", bias: true }]);
  assertEquals(diag, { block: 64, score: "softmax", scale: 0.25, outputNorm: false, rotates: true });
  assertEquals([linear.featureMap, linear.outputNorm, linear.perHead], ["1+elu", "rms", false]);
  assertEquals(norm, { kind: "rms", affine: false, epsilon: 1e-6, epsilonPlacement: "inside" });
  assertEquals([positions, embeddingScale], [{ kind: "none", offset: 0 }, undefined]);
  const t1 = read({ variant: "t1", norm_eps_placement: "additive", pre_norm: false, pad_token_id: 1 });
  assertEquals([t1.diag.score, t1.diag.outputNorm, t1.linear.featureMap], ["relu", true, "elu"]);
  assertEquals([t1.norm.epsilon, t1.finalNorm, t1.positions.offset], [1e-8, false, 2]);
  assertEquals(t1.padToken, undefined);
  assertEquals(read({ causal: false, pad_token_id: 1 }).padToken, 1);
  assertEquals(read({ scale_embedding: true }).embeddingScale, 8);
  const mixed = read({ layer_types: ["linear", "softmax"] });
  assertEquals([mixed.linear.outputNorm, mixed.layers], ["none", ["linear", "softmax"]]);
});

Deno.test("describeModel() names each field of a TransNormer that is malformed or not computed", async () => {
  await assertRefused(TRANSNORMER, [
    [{ layer_types: undefined }, "layer_types must be a list of diag, norm, parallel, linear, softmax"],
    [{ layer_types: ["diag", "mamba"] }, 'current value is ["diag","mamba"]'],
    [{ layer_types: ["diag"] }, "layer_types names 1 layers, num_hidden_layers is 2"],
    [{ hidden_size: 66 }, "hidden_size 66 must be a multiple of num_attention_heads 4"],
    [{ head_dim: 6 }, "the head size must be a multiple of 4 from 8 to 256: it is 6"],
    [{ num_key_value_heads: 3 }, "num_attention_heads 4 must be a multiple of num_key_value_heads 3"],
    [{ vocab_size: 2 ** 24 }, "vocab_size is 16777216, at most 16777215"],
    [{ diag_block_size: 1025 }, "diag_block_size is 1025, at most 1024"],
    [{ diag_score: "cosine" }, "diag_score must be one of softmax, relu"],
    [{ diag_rope: "absolute" }, "diag_rope must be one of per_block_restart, none"],
    [{ norm_feature_map: "performer" }, "norm_feature_map must be one of elu, 1+elu"],
    [{ norm_scale: 0.5 }, "norm_scale is 0.5, but NormAttention is computed without a scale"],
    [{ norm_output_norm: "batchnorm" }, "norm_output_norm must be one of simplermsnorm_all_heads"],
    [{ norm_denominator: true }, "norm_denominator is true, but layers of type norm have a norm"],
    [{ layer_types: ["linear", "linear"], norm_denominator: false }, "layers of type linear have one"],
    [
      { layer_types: ["linear", "linear"], norm_output_norm: "simplermsnorm_all_heads" },
      "norm_output_norm must be none for layers of type linear",
    ],
    [{ norm_type: "batchnorm" }, "norm_type must be one of simplermsnorm, rmsnorm, layernorm"],
    [{ norm_eps_placement: "outside" }, "norm_eps_placement must be one of inside_sqrt, additive"],
    [{ norm_eps: 0 }, "norm_eps must be a positive number"],
    [{ ffn_type: "mlp" }, "ffn_type must be one of glu"],
    [{ ffn_act: "mish" }, "ffn_act must be one of swish"],
    [{ rope_order: "before_feature_map" }, "rope_order must be one of after_feature_map"],
    [{ rope_layout: "concat" }, "rope_layout must be one of interleaved, half, none"],
    [{ rope_projection: "dct" }, "rope_projection must be one of identity, householder"],
    [{ rope_trainable: true, rope_layout: "none" }, "are computed for rotated features only"],
    [
      { rope_trainable: true, layer_types: ["softmax", "norm"] },
      "not with rope_layout none or layers of type softmax",
    ],
    [{ rope_scaling: { type: "linear" } }, "scaled rotations are not computed"],
    [{ causal: false, layer_types: ["softmax", "norm"] }, "layers of type softmax are computed causal only"],
    [{ position_embedding: "alibi" }, "position_embedding must be one of none, sinusoidal, learned"],
    [{ scale_embedding: false, embedding_scale: 8 }, "embedding_scale is 8, but scale_embedding is false"],
    [{ attention_bias: "yes" }, "attention_bias must be true or false"],
    [{ sliding_window: 64 }, "sliding windows are not computed"],
    [{ quantization_config: { bits: 4 } }, "quantised weights are not read yet"],
  ]);
});

Deno.test("transNormerLlmConfig() needs none of what released checkpoints leave out", () => {
  const read = (fields: object) => transNormerLlmConfig(configReader("config.json", { ...LLM, ...fields }));
  const plain = read({});
  assertEquals([plain.mixerSize, plain.intermediateSize, plain.headSize], [64, 64, 16]);
  assertEquals([plain.featureMap, plain.scalesEmbedding, plain.bias, plain.tied], [
    "silu",
    true,
    false,
    true,
  ]);
  assertEquals([plain.rotates, plain.slopes], [[true, false], [1 / 4, 1 / 16, 1 / 64, 1 / 256]]);
  const other = read({
    hidden_dim: 160,
    decoder_attention_heads: 20,
    glu_dim: 96,
    linear_act_fun: "none",
    linear_use_lrpe_list: [0, 1],
    no_scale_embedding: true,
    slopes: new Array(20).fill(0.5),
    model_max_length: 77,
  });
  assertEquals([other.mixerSize, other.headSize, other.intermediateSize], [160, 8, 96]);
  assertEquals([other.featureMap, other.scalesEmbedding, other.rotates], ["identity", false, [false, true]]);
  assertEquals([other.slopes[7], other.contextLength], [0.5, 77]);
});

Deno.test("logDecaysOf() gives the decays of released checkpoints", () => {
  const decays = (heads: number, layers: number, layer: number) => {
    const fields = {
      ...LLM,
      decoder_attention_heads: heads,
      decoder_embed_dim: 8 * heads,
      decoder_layers: layers,
    };
    return logDecaysOf(transNormerLlmConfig(configReader("config.json", fields)), layer).map(Math.exp);
  };
  const known: [number, number, number, number, number][] = [
    [8, 24, 0, 0.606528, 0.996101],
    [8, 24, 12, 0.787308, 0.998133],
    [16, 16, 0, 0.493065, 0.996101],
    [16, 16, 8, 0.718931, 0.998179],
    [32, 30, 15, 0.666338, 0.998116],
    [20, 32, 0, 0.493065, 0.742818],
    [16, 1, 0, 0.493065, 0.996101],
  ];
  for (const [heads, layers, layer, first, last] of known) {
    const all = decays(heads, layers, layer);
    assertAlmostEquals(all[0], first, 1e-6);
    assertAlmostEquals(all.at(-1)!, last, 1e-6);
  }
  assertAlmostEquals(Math.min(...decays(20, 32, 0)), 0.43132, 1e-6);
});

Deno.test("describeModel() names each field of a TransNormerLLM that is malformed or not computed", async () => {
  await assertRefused(LLM, [
    [{ decoder_embed_dim: undefined }, "decoder_embed_dim must be a whole number"],
    [{ hidden_dim: 66 }, "hidden_dim 66 must be a multiple of decoder_attention_heads 4"],
    [{ decoder_layers: 0 }, "decoder_layers must be a whole number"],
    [{ glu_dim: 0 }, "glu_dim must be positive, or -1 for the width: it is 0"],
    [{ linear_act_fun: "maxout" }, "linear_act_fun must be one of elu"],
    [{ linear_use_lrpe_list: [1] }, "linear_use_lrpe_list must be a list of 2 numbers"],
    [{ slopes: [1, 2, 3, -4] }, "slopes must be a list of 4 numbers from 0 on, one for each head"],
    [{ norm_type: "layernorm" }, "norm_type must be one of simplermsnorm"],
    [{ norm_eps_placement: "additive" }, "norm_eps_placement must be one of inside_sqrt"],
    [{ slope_formula: "paper" }, "slope_formula must be one of alibi_layer_scaled"],
    [{ gate_dim: 16 }, "gate_dim is 16, but low-rank gates (TransNormerLLM 3) are not computed yet"],
  ]);
});

Deno.test("loadModel() names a tensor of angles that is damaged or has another shape", async () => {
  const gpu = await sharedGpu();
  const { config, tensors } = randomTransNormerLlm();
  const name = "model.layers.0.token_mixer.lrpe.theta";
  const cases: [number[], number, string][] = [
    [[4, 1, 8], NaN, `Tensor ${name} holds 1 values that are NaN or infinite, the first at element 3`],
    [[4, 8], 1, `Tensor ${name} has shape [4, 8], config.json asks for [4, 1, 8]`],
  ];
  for (const [shape, value, message] of cases) {
    const data = new Float32Array(32).fill(0.5);
    data[3] = value;
    await using place = await folder({
      "config.json": JSON.stringify(config),
      "model.safetensors": safetensorsBytes(new Map(tensors).set(name, { shape, data })),
    });
    await assertRejects(() => loadModel(gpu, place.path, { dtype: "f32" }), RangeError, message);
    assertEquals(gpu.memory.holders(), {});
  }
});
