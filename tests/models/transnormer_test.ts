// TransNormers and TransNormerLLMs of random weights, from checkpoint to logits, against an oracle in f64.

import { assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import { forward, generate } from "../../lib/generate/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { largest } from "../harness/models.ts";
import { randomIds } from "../harness/random_llama.ts";
import {
  loadRandomTransNormer,
  oracleTensors,
  type RandomTransNormer,
  randomTransNormer,
  randomTransNormerLlm,
} from "../harness/random_transnormer.ts";
import { type Fields, transNormerLlmOracle, transNormerOracle } from "../oracles/transnormer.ts";

const gpu = await sharedGpu();

const TRANSNORMERS: Record<string, Fields> = {
  "blocks of softmax, then NormAttention (T2)": { embedding_scale: 5.5 },
  "blocks of ReLU, then NormAttention of elu (T1)": {
    variant: "t1",
    diag_score: "relu",
    norm_feature_map: "elu",
    norm_eps_placement: "additive",
  },
  "linear attention, no biases, a head of its own": {
    layer_types: ["linear", "linear"],
    attention_bias: false,
    ffn_bias: false,
    tie_word_embeddings: false,
    ffn_act: "none",
  },
  "softmax and linear attention, whose denominator is rotated, fewer KV heads, positions in halves": {
    layer_types: ["softmax", "linear"],
    num_key_value_heads: 2,
    denominator_rope: true,
    rope_layout: "half",
    norm_feature_map: "2+elu",
  },
  "both side by side, sines as positions, gelu": {
    layer_types: ["parallel", "norm"],
    position_embedding: "sinusoidal",
    scale_embedding: true,
    rope_layout: "none",
    ffn_act: "gelu",
    norm_output_norm: "simplermsnorm_per_head",
  },
  "trained angles behind a reflection, learned positions, norms with parameters": {
    rope_trainable: true,
    rope_projection: "householder",
    position_embedding: "learned",
    pad_token_id: 1,
    norm_type: "layernorm",
    embedding_norm: "layernorm",
    final_norm: false,
  },
  "odd sizes, RMSNorm with a weight": {
    hidden_size: 30,
    head_dim: 8,
    num_attention_heads: 3,
    num_key_value_heads: 1,
    intermediate_size: 37,
    norm_type: "rmsnorm",
    norm_output_norm: "layernorm_all_heads",
  },
};

const TRANSNORMER_LLMS: Record<string, Fields> = {
  "as released": {},
  "no activation, rotation in the second layer, no scale": {
    linear_act_fun: "none",
    linear_use_lrpe_list: [0, 1],
    no_scale_embedding: true,
  },
  "one layer, a wider mixer, the width as that of the gate": {
    decoder_layers: 1,
    linear_use_lrpe_list: [0],
    decoder_attention_heads: 8,
    hidden_dim: 64,
    glu_dim: -1,
  },
  "20 heads, biases, a head of its own, 1 + elu": {
    decoder_attention_heads: 20,
    decoder_embed_dim: 40,
    hidden_dim: 160,
    bias: true,
    tie_word_embeddings: false,
    linear_act_fun: "1+elu",
  },
  "no list of rotations and no angles": { linear_use_lrpe_list: undefined },
};

/** All logits and hidden states of a prompt, and greedy tokens after it, against the oracle. */
async function assertFollows(
  model: Model,
  made: RandomTransNormer,
  oracle: typeof transNormerOracle,
): Promise<void> {
  assertEquals(model.warnings, []);
  const vocabulary = made.config.vocab_size as number;
  const tensors = oracleTensors(made);
  const ids = randomIds(75, vocabulary, 6);
  const want = oracle(made.config, tensors, ids);
  const got = await forward(model, ids, { hidden: true });
  assertLess(relativeError(got.hidden!, want.hidden), 1e-4);
  assertLess(relativeError(got.logits, want.logits), 1e-4);
  const prompt = ids.slice(0, 29);
  const { ids: next } = await generate(model, prompt, { temperature: 0, maxTokens: 9, ignoreEos: true })
    .record;
  const { logits } = oracle(made.config, tensors, [...prompt, ...next]);
  next.forEach((id, i) => {
    const first = (prompt.length - 1 + i) * vocabulary;
    const { index, margin } = largest(logits.subarray(first, first + vocabulary));
    if (margin > 1e-3) assertEquals(id, index, `token ${i}`);
  });
}

for (const [name, fields] of Object.entries(TRANSNORMERS)) {
  Deno.test(`a TransNormer with ${name} follows the oracle`, async () => {
    const made = randomTransNormer(fields, 3);
    using model = await loadRandomTransNormer(gpu, made);
    await assertFollows(model, made, transNormerOracle);
  });
}

for (const [name, fields] of Object.entries(TRANSNORMER_LLMS)) {
  Deno.test(`a TransNormerLLM with ${name} follows the oracle`, async () => {
    const made = randomTransNormerLlm(fields, 4);
    using model = await loadRandomTransNormer(gpu, made);
    await assertFollows(model, made, transNormerLlmOracle);
  });
}

Deno.test("a bidirectional TransNormer with norms after its sublayers sees later tokens, and no pads", async () => {
  const made = randomTransNormer({
    causal: false,
    pre_norm: false,
    pad_token_id: 1,
    position_embedding: "learned",
    embedding_norm: "layernorm",
    layer_types: ["diag", "norm", "linear"],
    num_hidden_layers: 3,
  }, 5);
  using model = await loadRandomTransNormer(gpu, made);
  const tensors = oracleTensors(made);
  const ids = randomIds(70, 61, 7).map((id) => id === 1 ? 2 : id);
  const width = 32;
  const padded = [...ids, ...new Array<number>(13).fill(1)];
  const want = transNormerOracle(made.config, tensors, ids);
  const plain = await forward(model, ids, { hidden: true });
  assertLess(relativeError(plain.hidden!, want.hidden), 1e-4);
  const { hidden } = await forward(model, padded, { hidden: true });
  assertLess(relativeError(hidden!.subarray(0, ids.length * width), want.hidden), 1e-4);
  // The last token changes what comes before it.
  const other = await forward(model, [...ids.slice(0, -1), 3], { hidden: true });
  assertGreater(relativeError(other.hidden!.subarray(0, width), want.hidden.subarray(0, width)), 1e-3);
  await assertRejects(
    async () => {
      await generate(model, ids, { maxTokens: 2 }).record;
    },
    TypeError,
    "bidirectional",
  );
});

Deno.test("a TransNormer in f16 follows the oracle over the same rounded weights", async () => {
  const made = randomTransNormer({}, 6);
  using model = await loadRandomTransNormer(gpu, made, "f16");
  const tensors = new Map(
    [...oracleTensors(made)].map(([name, data]) => [
      name,
      // Biases stay in f32.
      name.endsWith(".bias") ? data : Float64Array.from(new Float16Array(data)),
    ]),
  );
  const ids = randomIds(40, 61, 8);
  const { logits } = await forward(model, ids);
  assertLess(relativeError(logits, transNormerOracle(made.config, tensors, ids).logits), 2e-3);
});

Deno.test("a TransNormer with learned positions says where they end", async () => {
  const made = randomTransNormer({ position_embedding: "learned", max_position_embeddings: 16 }, 7);
  using model = await loadRandomTransNormer(gpu, made);
  await assertRejects(() => forward(model, randomIds(17, 61)), RangeError, "16");
});

Deno.test("a TransNormerLLM takes a tied table under either name or both", async () => {
  const made = randomTransNormerLlm({}, 8);
  const ids = randomIds(9, 61);
  const logits = async (tensors: RandomTransNormer["tensors"], fields: Fields = {}) => {
    using model = await loadRandomTransNormer(gpu, { config: { ...made.config, ...fields }, tensors });
    assertEquals(model.warnings, []);
    return (await forward(model, ids)).logits;
  };
  const table = made.tensors.get("model.embed_tokens.weight")!;
  const expected = await logits(made.tensors);
  const both = new Map(made.tensors).set("lm_head.weight", table);
  assertEquals(await logits(both), expected);
  const head = new Map(both);
  head.delete("model.embed_tokens.weight");
  assertEquals(await logits(head), expected);
  // Not tied, but left out of the checkpoint.
  assertEquals(await logits(made.tensors, { tie_word_embeddings: false }), expected);
});
