// Sessions as bytes: what is restored goes on to the bit as what was saved, whatever its layers keep.

import { assert, assertEquals, assertLess, assertRejects } from "@std/assert";
import {
  type Model,
  normAttention,
  pyramidInfer,
  restoreSession,
  session,
  withKvPruning,
  withLinearAttention,
} from "../../mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";

const gpu = await sharedGpu();
const MADE = randomLlama({ num_hidden_layers: 3, max_position_embeddings: 512 }, 6);
const GREEDY = { temperature: 0, logprobs: 1, ignoreEos: true, maxTokens: 20 } as const;
const VOCABULARY = MADE.config.vocab_size;

const MODELS: Readonly<Record<string, (model: Model) => Model>> = {
  "keys and values": (model) => model,
  "pruned keys and values": withKvPruning(pyramidInfer({ keep: 0.6 })),
  "states": withLinearAttention(normAttention()),
  "keys, values and states": withLinearAttention(normAttention(), { layers: (layer) => layer === 1 }),
};

for (const [name, apply] of Object.entries(MODELS)) {
  Deno.test(`restoreSession() of a cache of ${name} goes on to the bit`, async () => {
    using model = await loadRandomLlama(gpu, MADE);
    const made = apply(model);
    using talk = session(made);
    await talk.generate(randomIds(90, VOCABULARY, 1), GREEDY).record;
    talk.append([5, 6]);
    const bytes = await talk.save();
    using again = await restoreSession(made, bytes);
    assertEquals(again.ids, talk.ids);
    const next = randomIds(40, VOCABULARY, 2);
    const [want, got] = [await talk.generate(next, GREEDY).record, await again.generate(next, GREEDY).record];
    assertEquals([got.ids, got.logprobs, got.promptIds], [want.ids, want.logprobs, want.promptIds]);
    assertEquals(await again.save(), await talk.save());
  });
}

Deno.test("save() of layers with states takes the same however long the text", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  const linear = withLinearAttention(normAttention())(model);
  const sizes: number[] = [];
  for (const tokens of [10, 400]) {
    using talk = session(linear);
    await talk.generate(randomIds(tokens, VOCABULARY, 3), { ...GREEDY, maxTokens: 1 }).record;
    sizes.push((await talk.save()).length);
  }
  // All that grows are the ids.
  assertLess(sizes[1] - sizes[0], 390 * 4 + 200);
});

Deno.test("save() and restoreSession() of a session that has not begun, or has only prompts", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  using empty = session(model);
  using restored = await restoreSession(model, await empty.save());
  assertEquals(restored.ids, []);
  empty.append([1, 2, 3]);
  using appended = await restoreSession(model, await empty.save());
  const [want, got] = [await empty.generate([4], GREEDY).record, await appended.generate([4], GREEDY).record];
  assertEquals([got.ids, got.promptIds], [want.ids, want.promptIds]);
});

Deno.test("restoreSession() refuses other models and damaged bytes, and leaves nothing allocated", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  using talk = session(model);
  await talk.generate([1, 2, 3], GREEDY).record;
  const bytes = await talk.save();
  const lean = withKvPruning(pyramidInfer({ keep: 0.6 }))(model);
  await assertRejects(() => restoreSession(lean, bytes), TypeError, "of another model");
  const before = gpu.memory.bytes;
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(), "they begin otherwise"],
    [bytes.slice(1), "they begin otherwise"],
    [bytes.slice(0, 30), "the header is damaged"],
    [bytes.slice(0, -1), "as after an interrupted copy"],
    [Uint8Array.of(...bytes, 0), "as after an interrupted copy"],
  ];
  for (const [damaged, message] of cases) {
    await assertRejects(() => restoreSession(model, damaged), TypeError, message);
  }
  const broken = bytes.slice();
  broken[40] ^= 0xff;
  await assertRejects(() => restoreSession(model, broken), TypeError);
  assertEquals(gpu.memory.bytes, before);
  assert(bytes.length > 0);
});
