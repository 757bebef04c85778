// A device whose binding limit is small: weights, vocabulary and caches stand in several buffers, and nothing changes.

import { assert, assertEquals } from "@std/assert";
import { forward, generate } from "../../lib/generate/mod.ts";
import type { Plan } from "../../lib/graph/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { pipelineLogits } from "../harness/pipeline_logits.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";
import { limitGpu } from "../harness/replace_members.ts";

const SHAPE = {
  hidden_size: 40,
  intermediate_size: 56,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 8,
  vocab_size: 123,
};

/** How many kernel calls an operation took. */
function callsOf(plan: Plan, operation: string): number {
  return plan.dispatches.filter((dispatch) => dispatch.operation === operation).length;
}

/** Names of the buffers that a plan binds. */
function resourcesOf(plan: Plan): Set<string> {
  return new Set(
    plan.dispatches.flatMap(({ operands }) =>
      operands.flatMap((operand) => operand.type === "resource" ? [operand.name] : [])
    ),
  );
}

const LIMITS = [
  // Heads of 24 slots and 8 numbers: two to an arena in f32. Parts of 10 or 7 rows.
  { dtype: "f32", tie_word_embeddings: false, bindingBytes: 1600 },
  { dtype: "f32", tie_word_embeddings: true, bindingBytes: 1600 },
  // Gate and up in parts of their own, keys in one part with some queries, caches whole.
  { dtype: "f32", tie_word_embeddings: true, bindingBytes: 16_000 },
  { dtype: "f16", tie_word_embeddings: false, bindingBytes: 1400 },
] as const;

for (const { dtype, tie_word_embeddings, bindingBytes } of LIMITS) {
  const label = `${dtype}, ${tie_word_embeddings ? "tied" : "untied"}, ${bindingBytes} bytes a binding`;
  Deno.test(`a small binding limit changes no bit of the logits (${label})`, async () => {
    const gpu = await sharedGpu();
    const made = randomLlama({ ...SHAPE, tie_word_embeddings }, 5);
    using whole = await loadRandomLlama(gpu, made, dtype);
    using split = await loadRandomLlama(
      limitGpu(gpu, { maxStorageBufferBindingSize: bindingBytes }),
      made,
      dtype,
    );
    const sequences = [randomIds(14, 123, 2), randomIds(10, 123, 3)];
    const options = { prefillRows: 2, decode: 4 };
    const want = await pipelineLogits(whole, sequences, options);
    const got = await pipelineLogits(split, sequences, options);
    got.plans.forEach((plan, i) => {
      for (const operation of ["embedding", "linear"]) {
        assert(callsOf(plan, operation) > callsOf(want.plans[i], operation), `${operation} is not split`);
      }
      const arenas = ["kv.0.keys.1", "kv.1.values.1"].map((name) => resourcesOf(plan).has(name));
      assertEquals(arenas, Array(2).fill(bindingBytes < 3000));
      assertEquals(resourcesOf(want.plans[i]).has("kv.0.keys.1"), false);
    });
    for (const [i, logits] of got.logits.entries()) assertEquals(logits, want.logits[i]);
  });
}

Deno.test("forward() and generate() on a device with a small binding limit change no bit", async () => {
  const gpu = await sharedGpu();
  const made = randomLlama({ ...SHAPE, num_attention_heads: 4, tie_word_embeddings: true }, 6);
  using whole = await loadRandomLlama(gpu, made);
  using split = await loadRandomLlama(limitGpu(gpu, { maxStorageBufferBindingSize: 16_000 }), made);
  assertEquals(
    split.weights.map((weight) => split.store!.parts(weight).length).filter((parts) => parts > 1).length,
    3,
  );
  const ids = randomIds(30, 123, 4);
  assertEquals(await forward(split, ids, { hidden: true }), await forward(whole, ids, { hidden: true }));
  // 130 slots: three KV heads to an arena.
  const options = { maxTokens: 100, temperature: 0, logprobs: 4, ignoreEos: true };
  const [a, b] = await Promise.all([split, whole].map((model) => generate(model, ids, options).record));
  assertEquals([a.ids, a.logprobs], [b.ids, b.logprobs]);
  assertEquals(a.ids.length, 100);
});
