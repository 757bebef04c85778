// The whole pipeline of a Llama on the GPU against an f64 oracle, and the oracle against PyTorch.

import { assert, assertEquals, assertLess } from "@std/assert";
import { join } from "@std/path";
import { forward } from "../../lib/generate/mod.ts";
import { openCheckpoint } from "../../lib/weights/mod.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { exists, NOVEL_LLAMA, sharedPath } from "../harness/models.ts";
import { pipelineLogits } from "../harness/pipeline_logits.ts";
import { loadRandomLlama, oracleTensors, randomIds, randomLlama } from "../harness/random_llama.ts";
import { llamaCache, type LlamaConfigJson, llamaOracle } from "../oracles/llama.ts";

const SHAPES: Record<string, Partial<LlamaConfigJson>> = {
  "grouped queries, an odd vocabulary, a hidden size that is no multiple of 8": {
    hidden_size: 36,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 12,
    intermediate_size: 52,
    vocab_size: 97,
  },
  "one KV head, heads wider than the hidden size, an untied head, odd sizes": {
    hidden_size: 27,
    num_attention_heads: 3,
    num_key_value_heads: 1,
    head_dim: 20,
    intermediate_size: 31,
    vocab_size: 61,
    tie_word_embeddings: false,
    num_hidden_layers: 3,
    rope_theta: 500_000,
  },
  "as many KV heads as heads, scaled as in Llama 3": {
    hidden_size: 64,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    intermediate_size: 100,
    vocab_size: 130,
    num_hidden_layers: 1,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 32,
    },
  },
};

for (const [name, shape] of Object.entries(SHAPES)) {
  Deno.test(`forward() of a Llama agrees with the f64 oracle (${name})`, async () => {
    const gpu = await sharedGpu();
    const made = randomLlama(shape, 3);
    using model = await loadRandomLlama(gpu, made);
    for (const length of [1, 2, 33, 65]) {
      const ids = randomIds(length, made.config.vocab_size, length);
      const want = llamaOracle(made.config, oracleTensors(made), ids);
      const got = await forward(model, ids, { hidden: true });
      assertLess(relativeError(got.logits, want.logits), 1e-5, `${length} tokens`);
      assertLess(relativeError(got.hidden!, want.hidden), 1e-5, `${length} tokens`);
    }
  });

  Deno.test(`decoding a Llama packed with others agrees with the f64 oracle (${name})`, async () => {
    const gpu = await sharedGpu();
    const made = randomLlama(shape, 4);
    using model = await loadRandomLlama(gpu, made);
    const sequences = [12, 70, 9].map((length) => randomIds(length, made.config.vocab_size, length));
    // Steps of 16 rows that cut sequences anywhere, then one row of each, logits by fives.
    const { logits } = await pipelineLogits(model, sequences, { prefillRows: 16, logitRows: 5, decode: 8 });
    sequences.forEach((ids, i) => {
      const want = llamaOracle(made.config, oracleTensors(made), ids);
      assertLess(relativeError(logits[i], want.logits), 1e-5, `${ids.length} tokens`);
    });
  });
}

Deno.test("forward() of a Llama in f16 agrees with the f64 oracle over the same rounded weights", async () => {
  const gpu = await sharedGpu();
  for (const shape of Object.values(SHAPES)) {
    const made = randomLlama(shape, 5);
    using model = await loadRandomLlama(gpu, made, "f16");
    const tensors = new Map(
      [...oracleTensors(made)].map(([name, data]) => [
        name,
        // Norms stay in f32.
        name.includes("norm") ? data : Float64Array.from(new Float16Array(data)),
      ]),
    );
    const ids = randomIds(40, made.config.vocab_size, 6);
    const { logits } = await forward(model, ids);
    // Keys and values are rounded to f16 too, by 2^-11 each.
    assertLess(relativeError(logits, llamaOracle(made.config, tensors, ids).logits), 2e-3);
  }
});

Deno.test("llamaOracle() gives the same in pieces as at once", () => {
  const made = randomLlama(Object.values(SHAPES)[0], 7);
  const { config } = made;
  const tensors = oracleTensors(made);
  const ids = randomIds(9, config.vocab_size, 8);
  const whole = llamaOracle(config, tensors, ids).logits;
  const cache = llamaCache(config);
  const pieces = [[0, 4], [4, 5], [5, 9]].flatMap(([first, last]) => {
    const positions = ids.slice(first, last).map((_, i) => first + i);
    return [...llamaOracle(config, tensors, ids.slice(first, last), { cache, positions }).logits];
  });
  assertEquals(Float64Array.from(pieces), whole);
});

/** The tensors of a checkpoint, widened. */
async function readTensors(directory: string): Promise<Map<string, Float64Array>> {
  using checkpoint = await openCheckpoint(directory);
  const tensors = new Map<string, Float64Array>();
  for (const [name, { elements }] of checkpoint.tensors) {
    const data = new Float64Array(elements);
    await checkpoint.read(
      name,
      "f32",
      (bytes, element) => data.set(new Float32Array(bytes.slice().buffer), element),
    );
    tensors.set(name, data);
  }
  return tensors;
}

const GOLDEN: [name: string, directory: string][] = [
  ["stories260k", sharedPath("stories260k")],
  ["novel-llama", NOVEL_LLAMA],
];

for (const [name, directory] of GOLDEN) {
  const golden = sharedPath("golden", `${name}.json`);
  Deno.test({
    name: `llamaOracle() agrees with PyTorch on ${name}`,
    ignore: !exists(golden),
    fn: async () => {
      const config: LlamaConfigJson = JSON.parse(await Deno.readTextFile(join(directory, "config.json")));
      const tensors = await readTensors(directory);
      // Tied checkpoints may have the table under the head's name only.
      const table = tensors.get("model.embed_tokens.weight") ?? tensors.get("lm_head.weight")!;
      tensors.set("model.embed_tokens.weight", table);
      const { prompts } = JSON.parse(await Deno.readTextFile(golden));
      const prompt = prompts.find(({ length }: { length: number }) => length === 64);
      const { logits } = llamaOracle(config, tensors, prompt.ids);
      const last = logits.subarray(63 * config.vocab_size);
      assert(prompt.logits.length === config.vocab_size);
      // PyTorch computed in f32.
      assertLess(relativeError(last, prompt.logits), 1e-5);
    },
  });
}
