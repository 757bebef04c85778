// config.json and generation_config.json: what is read from them, and what is refused by name.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { printLayers } from "../../lib/layers/mod.ts";
import { describeModel } from "../../lib/models/mod.ts";
import { NOVEL_LLAMA } from "../harness/models.ts";
import { folder } from "../weights/crafted.ts";

const CONFIG = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 100,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-6,
};

/** Describes a model with these fields over or, when undefined, missing from a good configuration. */
async function describe(
  fields: Record<string, unknown>,
  generation?: Record<string, unknown> | string,
): Promise<Awaited<ReturnType<typeof describeModel>>> {
  const files: Record<string, string> = { "config.json": JSON.stringify({ ...CONFIG, ...fields }) };
  if (generation !== undefined) {
    files["generation_config.json"] = typeof generation === "string"
      ? generation
      : JSON.stringify(generation);
  }
  await using place = await folder(files);
  return await describeModel(place.path);
}

Deno.test("describeModel() reads sizes, ids and defaults of the model that comes along", async () => {
  const model = await describeModel(NOVEL_LLAMA, { dtype: "f32" });
  assertEquals(model.config, {
    modelType: "llama",
    vocabularySize: 4096,
    hiddenSize: 128,
    contextLength: 2048,
    eosIds: [0],
    bosId: 0,
  });
  assertEquals(model.defaults, {
    temperature: 0.8,
    topP: 0.95,
    topK: 0,
    minP: 0,
    repetitionPenalty: 1,
    eosIds: [0],
  });
  assertEquals([model.dtype, model.loadMs, model.warnings, model.store], ["f32", 0, [], undefined]);
  assertEquals(model.tokenizer!.vocabSize, 4096);
  assertEquals(model.weights.reduce((sum, { rows, columns }) => sum + rows * columns, 0), 1_631_872);
  const printed = printLayers(model.pipeline);
  assertEquals(printed.split("\n").filter((line) => line.includes("attention(")).length, 6);
});

Deno.test("describeModel() fills in what a config.json may leave out", async () => {
  const { rms_norm_eps: _, num_key_value_heads: __, max_position_embeddings: ___, ...least } = CONFIG;
  await using place = await folder({ "config.json": JSON.stringify(least) });
  const model = await describeModel(place.path);
  assertEquals(model.config, {
    modelType: "llama",
    vocabularySize: 100,
    hiddenSize: 64,
    contextLength: 2048,
    eosIds: [],
  });
  assertEquals(model.tokenizer, undefined);
  assertEquals(model.dtype, "f16");
  const { defaults } = model;
  assertEquals([defaults.temperature, defaults.topP, defaults.topK, defaults.minP], [0, 1, 0, 0]);
  // As many key and value heads as heads, and a head of its own beside the table.
  const rows = Object.fromEntries(model.weights.map((weight) => [weight.name, weight.rows]));
  assertEquals(rows["model.layers.0.self_attn.qkv_proj"], 3 * 64);
  assertEquals(rows.lm_head, 100);
});

Deno.test("describeModel() takes fields that are null as if they were not there", async () => {
  const { config } = await describe({
    head_dim: null,
    rope_scaling: null,
    sliding_window: null,
    quantization_config: null,
    rope_parameters: null,
    bos_token_id: null,
    eos_token_id: null,
    attention_bias: null,
  });
  assertEquals([config.eosIds, config.bosId], [[], undefined]);
});

Deno.test("describeModel() reads end-of-text ids, one or a list, from generation_config.json or config.json", async () => {
  const ids = async (config: unknown, generation?: unknown) =>
    (await describe(
      { eos_token_id: config },
      generation === undefined ? undefined : { eos_token_id: generation },
    ))
      .defaults.eosIds;
  assertEquals(await ids(7), [7]);
  assertEquals(await ids([7, 9]), [7, 9]);
  assertEquals(await ids(7, [1, 2]), [1, 2]);
  assertEquals(await ids(7, 3), [3]);
  assertEquals(await ids([7, 8], null), [7, 8]);
});

Deno.test("describeModel() samples only when generation_config.json says do_sample", async () => {
  const sampling = { temperature: 0.6, top_p: 0.9, top_k: 50, min_p: 0.05, repetition_penalty: 1.1 };
  const on = (await describe({}, { ...sampling, do_sample: true })).defaults;
  assertEquals(on, { temperature: 0.6, topP: 0.9, topK: 50, minP: 0.05, repetitionPenalty: 1.1, eosIds: [] });
  const off = (await describe({}, sampling)).defaults;
  assertEquals(off, { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1.1, eosIds: [] });
});

Deno.test("describeModel() reads rope settings in their old and their new place", async () => {
  const frequencies = async (fields: Record<string, unknown>) => {
    const printed: unknown[] = [];
    const { pipeline } = await describe(fields);
    const visit = (layer: typeof pipeline): void => {
      if (layer.kind === "attention") {
        printed.push((layer.config as { rotary: { name: string } }).rotary.name);
      }
      layer.layers.forEach((inner) => visit(inner as typeof pipeline));
    };
    visit(pipeline);
    assertEquals(new Set(printed).size, 1);
    return printed[0];
  };
  const plain = await frequencies({});
  assertEquals(await frequencies({ rope_theta: 10000 }), plain);
  assertEquals(await frequencies({ rope_scaling: { rope_type: "default" } }), plain);
  assertEquals(await frequencies({ rope_parameters: { rope_type: "default", rope_theta: 10000 } }), plain);
  assertEquals(await frequencies({ rope_parameters: { rope_theta: 10000 } }), plain);
  const theta = await frequencies({ rope_theta: 500000 });
  assert(theta !== plain);
  assertEquals(await frequencies({ rope_parameters: { rope_theta: 500000 } }), theta);
  const linear = await frequencies({ rope_scaling: { type: "linear", factor: 4 } });
  assertEquals(
    await frequencies({ rope_scaling: { rope_type: "linear", type: "linear", factor: 4 } }),
    linear,
  );
  assertEquals(await frequencies({ rope_parameters: { rope_type: "linear", factor: 4 } }), linear);
  assert(linear !== plain);
});

const LLAMA3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

/** A field that is wrong, and what is said of it. */
const MALFORMED: [Record<string, unknown>, string][] = [
  ...["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"].flatMap(
    (name): [Record<string, unknown>, string][] =>
      [undefined, null, "8", 0, -4, 1.5, 1e12, true, [8]].map((value) => [
        { [name]: value },
        `${name} must be a whole number from 1 to 2147483648`,
      ]),
  ),
  [{ num_key_value_heads: 3 }, "num_attention_heads 4 must be a multiple of num_key_value_heads 3"],
  [{ num_key_value_heads: 0 }, "num_key_value_heads must be a whole number"],
  [{ hidden_size: 66 }, "hidden_size 66 must be a multiple of num_attention_heads 4"],
  [{ hidden_size: 16 }, "the head size must be a multiple of 4 from 8 to 256: it is 4"],
  [{ hidden_size: 4096 }, "it is 1024"],
  [{ head_dim: 10 }, "the head size must be a multiple of 4 from 8 to 256: it is 10"],
  [{ head_dim: "16" }, "head_dim must be a whole number"],
  [{ num_hidden_layers: 1025 }, "num_hidden_layers is 1025, at most 1024"],
  [{ vocab_size: 2 ** 24 }, "vocab_size is 16777216, at most 16777215"],
  [{ max_position_embeddings: 2 ** 24 }, "max_position_embeddings is 16777216, at most 16777215"],
  [{ max_position_embeddings: 0 }, "max_position_embeddings must be a whole number"],
  [{ max_position_embeddings: 1e12 }, "max_position_embeddings must be a whole number"],
  [{ rms_norm_eps: 0 }, "rms_norm_eps must be a positive number"],
  [{ rms_norm_eps: "1e-5" }, "rms_norm_eps must be a positive number"],
  [{ rope_theta: -1 }, "rope_theta must be a positive number"],
  [{ rope_theta: "10000" }, "rope_theta must be a positive number"],
  [{ tie_word_embeddings: "yes" }, "tie_word_embeddings must be true or false"],
  [{ eos_token_id: -1 }, "eos_token_id must be an id or a list of ids"],
  [{ eos_token_id: [1, "2"] }, "eos_token_id must be an id or a list of ids"],
  [{ bos_token_id: 1.5 }, "bos_token_id must be an id"],
  [{ rope_scaling: "linear" }, "rope_scaling must be an object"],
  [{ rope_scaling: [1] }, "rope_scaling must be an object"],
  [{ rope_scaling: { type: "linear" } }, "rope_scaling: factor must be a positive number"],
  [{ rope_scaling: { ...LLAMA3, factor: 0 } }, "rope_scaling: factor must be a positive number"],
  [{ rope_scaling: { ...LLAMA3, low_freq_factor: null } }, "low_freq_factor must be a positive number"],
  [
    { rope_scaling: { ...LLAMA3, high_freq_factor: 1 } },
    "high_freq_factor 1 must be greater than low_freq_factor 1",
  ],
  [
    { rope_scaling: { ...LLAMA3, original_max_position_embeddings: undefined } },
    "original_max_position_embeddings must be a whole number",
  ],
];

/** What is not computed yet, and what is said of it. */
const REFUSED: [Record<string, unknown>, string][] = [
  [{ model_type: "mamba" }, 'model_type "mamba" is not supported: known are llama'],
  [{ model_type: undefined }, "model_type undefined is not supported"],
  [{ model_type: 5 }, "model_type 5 is not supported"],
  [{ model_type: "toString" }, 'model_type "toString" is not supported'],
  [{ hidden_act: "gelu" }, "hidden_act must be one of silu"],
  [{ hidden_act: 3 }, "hidden_act must be one of silu"],
  [{ attention_bias: true }, "attention_bias is true, but biases are not computed yet"],
  [{ mlp_bias: true }, "mlp_bias is true, but biases are not computed yet"],
  [{ sliding_window: 4096 }, "sliding_window is 4096, but sliding windows are not computed yet"],
  [{ quantization_config: { bits: 4 } }, "but quantised weights are not read yet"],
  [{ partial_rotary_factor: 0.5 }, "partial_rotary_factor is 0.5, but partial rotary embeddings"],
  [{ rope_scaling: { rope_type: "yarn", factor: 4 } }, "rope_type must be one of default, linear, llama3"],
  [{ rope_scaling: { type: "dynamic", factor: 2 } }, 'current value is "dynamic"'],
  [{ rope_scaling: { rope_type: null, type: "dynamic", factor: 2 } }, 'current value is "dynamic"'],
  [{ rope_parameters: { rope_type: "longrope" } }, 'current value is "longrope"'],
  [{ rope_scaling: { factor: 2 } }, "rope_type must be one of"],
];

for (const [what, cases] of [["malformed", MALFORMED], ["not computed yet", REFUSED]] as const) {
  Deno.test(`describeModel() names each field of config.json that is ${what}`, async () => {
    for (const [fields, message] of cases) {
      const error = await assertRejects(() => describe(fields), Error, message, JSON.stringify(fields));
      assert(error.message.includes("config.json"), error.message);
    }
  });
}

Deno.test("describeModel() names each field of generation_config.json that is malformed", async () => {
  const cases: [Record<string, unknown> | string, string][] = [
    [{ do_sample: "yes" }, "do_sample must be true or false"],
    [{ do_sample: true, temperature: -1 }, "temperature must be a positive number"],
    [{ do_sample: true, top_p: 2 }, "top_p must be from 0 to 1: current value is 2"],
    [{ do_sample: true, top_k: 1.5 }, "top_k must be a whole number"],
    [{ do_sample: true, min_p: "x" }, "min_p must be from 0 to 1"],
    [{ repetition_penalty: 0 }, "repetition_penalty must be a positive number"],
    [{ eos_token_id: "x" }, "eos_token_id must be an id or a list of ids"],
    ["{", "is not JSON"],
    ["[]", "must hold a JSON object"],
  ];
  for (const [generation, message] of cases) {
    const error = await assertRejects(() => describe({}, generation), Error, message);
    assert(error.message.includes("generation_config.json"), error.message);
  }
});

Deno.test("describeModel() says what is wrong with a folder or a file that is no configuration", async () => {
  const cases: [Record<string, string>, string, new () => Error][] = [
    [{}, "There is no config.json in", Error],
    [{ "config.json": "" }, "config.json is not JSON", SyntaxError],
    [{ "config.json": "{" }, "config.json is not JSON", SyntaxError],
    [{ "config.json": "[1]" }, "config.json must hold a JSON object", TypeError],
    [{ "config.json": "null" }, "config.json must hold a JSON object", TypeError],
    [{ "config.json": '"llama"' }, "config.json must hold a JSON object", TypeError],
    [{ "config.json": "{}" }, "model_type undefined is not supported", Error],
  ];
  for (const [files, message, type] of cases) {
    await using place = await folder(files);
    await assertRejects(() => describeModel(place.path), type, message);
  }
  await assertRejects(
    () => describeModel("no/such/folder"),
    Error,
    "There is no config.json in no/such/folder",
  );
});
