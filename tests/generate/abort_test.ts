// A long prompt can be aborted while it is being fed: nothing of it stays.

import { assertEquals, assertLess } from "@std/assert";
import { generate, session } from "../../lib/generate/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";

const gpu = await sharedGpu();
const model = await loadRandomLlama(gpu, randomLlama({ max_position_embeddings: 8192 }, 7));
const held = gpu.memory.bytes;

/** A signal that is aborted from the n-th look at it on. */
function abortedAtLook(n: number): { signal: AbortSignal; looks: () => number } {
  let looks = 0;
  const signal = new AbortController().signal;
  Object.defineProperty(signal, "aborted", { get: () => ++looks >= n });
  return { signal, looks: () => looks };
}

const OPTIONS = { maxTokens: 6, temperature: 0, ignoreEos: true, logprobs: 1 };

Deno.test("generate() on a signal that is aborted already feeds nothing", async () => {
  const record = await generate(model, [1, 2, 3], { ...OPTIONS, signal: AbortSignal.abort() }).record;
  assertEquals([record.finishReason, record.ids, record.readbacks], ["aborted", [], 0]);
  assertEquals(record.timing.prefillTokensPerSecond, 0);
  assertEquals(gpu.memory.bytes, held);
});

Deno.test("generate() looks at the signal while a long prompt is fed", async () => {
  const { signal, looks } = abortedAtLook(2);
  const { vocabularySize } = model.config;
  const prompts = [randomIds(1500, vocabularySize, 1), randomIds(3000, vocabularySize, 2)];
  const records = await generate(model, prompts, { ...OPTIONS, signal }).record;
  for (const record of records) assertEquals([record.finishReason, record.ids], ["aborted", []]);
  assertLess(looks(), 10);
  assertEquals(gpu.memory.bytes, held);
});

Deno.test("session() is as before after a prompt that was aborted while it was fed", async () => {
  const { vocabularySize } = model.config;
  const first = randomIds(40, vocabularySize, 3);
  const long = randomIds(3000, vocabularySize, 4);
  const turn = randomIds(20, vocabularySize, 5);
  using aborted = session(model, { cacheTokens: 4096 });
  using plain = session(model, { cacheTokens: 4096 });
  for (const one of [aborted, plain]) await one.generate(first, OPTIONS).record;
  const { signal } = abortedAtLook(2);
  const { finishReason, ids } = await aborted.generate(long, { ...OPTIONS, signal }).record;
  assertEquals([finishReason, ids], ["aborted", []]);
  // The prompt stays in the session, and is fed with what comes next.
  assertEquals(aborted.ids.length, 40 + 6 + 3000);
  const [a, b] = [
    await aborted.generate(turn, OPTIONS).record,
    await plain.generate([...long, ...turn], OPTIONS).record,
  ];
  assertEquals([a.ids, a.logprobs], [b.ids, b.logprobs]);
});
