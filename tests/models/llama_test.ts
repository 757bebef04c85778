// Llamas of random weights, from checkpoint to logits, against an oracle in f64.

import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { forward, generate, score } from "../../lib/generate/mod.ts";
import { type LlamaConfigJson, llamaOracle } from "../oracles/llama.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { largest, largestDifference, logSoftmax } from "../harness/models.ts";
import { loadRandomLlama, oracleTensors, randomIds, randomLlama } from "../harness/random_llama.ts";

const gpu = await sharedGpu();

const LLAMA3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
} as const;

const CASES: Record<string, Partial<LlamaConfigJson>> = {
  "grouped heads": {},
  "as many key and value heads as heads": { num_key_value_heads: 4 },
  "one key and value head": { num_key_value_heads: 1 },
  "a head of its own": { tie_word_embeddings: false },
  "heads wider than the hidden state": { head_dim: 20 },
  "sizes that are no multiples of four": {
    hidden_size: 30,
    head_dim: 8,
    intermediate_size: 37,
    vocab_size: 61,
  },
  "another base of rotation": { rope_theta: 500000 },
  "linear rope scaling": { rope_scaling: { rope_type: "linear", factor: 4 } },
  "llama3 rope scaling": { rope_scaling: LLAMA3, head_dim: 16 },
};

for (const [name, sizes] of Object.entries(CASES)) {
  Deno.test(`forward() of a Llama with ${name} gives what the oracle gives`, async () => {
    const llama = randomLlama(sizes, 5);
    const { vocab_size: vocabulary } = llama.config;
    const ids = randomIds(150, vocabulary, 6);
    using model = await loadRandomLlama(gpu, llama);
    const { logits, hidden } = await forward(model, ids, { hidden: true });
    const expected = llamaOracle(llama.config, oracleTensors(llama), ids);
    assertLess(largestDifference(logits, expected.logits), 1e-4);
    assertLess(largestDifference(hidden!, expected.hidden), 1e-4);
    // The settings of this case matter: without them it is something else.
    if (!sizes.rope_scaling && !sizes.rope_theta) return;
    const { rope_scaling: _, ...plain } = { ...llama.config, rope_theta: 10000 };
    const other = llamaOracle(plain, oracleTensors(llama), ids);
    assertGreater(largestDifference(logits, other.logits), 1e-2);
  });
}

Deno.test("generate() and score() of a Llama with llama3 rope scaling follow the oracle at long positions", async () => {
  const llama = randomLlama({ rope_scaling: LLAMA3, max_position_embeddings: 700 }, 7);
  using model = await loadRandomLlama(gpu, llama);
  const prompt = randomIds(560, 64, 8);
  const { ids } = await generate(model, prompt, { temperature: 0, maxTokens: 12, ignoreEos: true }).record;
  const all = [...prompt, ...ids];
  const { logits } = llamaOracle(llama.config, oracleTensors(llama), all);
  const row = (position: number) => Float32Array.from(logits.subarray(position * 64, (position + 1) * 64));
  ids.forEach((id, i) => {
    const { index, margin } = largest(row(prompt.length - 1 + i));
    if (margin > 1e-3) assertEquals(id, index, `token ${i}`);
  });
  const { nll } = await score(model, all);
  const expected = all.slice(1).map((id, i) => -logSoftmax(row(i))[id]);
  assertLess(largestDifference(nll, expected), 1e-4);
});
