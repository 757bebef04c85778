// Several prompts at once: each gets what it gets alone, to the bit with batchInvariant, whatever its neighbours do.

import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { generate, type GenerateOptions, type GenerateRecord, type Prompt } from "../../lib/generate/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { randomIds } from "../harness/random_llama.ts";
import { assertAgree, essence, novelLlama, watch } from "../harness/models.ts";

const gpu = await sharedGpu();
const GREEDY: GenerateOptions = { temperature: 0, logprobs: 2, ignoreEos: true };
const TEXTS: readonly Prompt[] = [
  "When Mary",
  [278],
  "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals, when",
  "I",
  randomIds(600, 4096, 8),
  "The moor was dark, and",
  '"No," said',
  "He went down to the",
  "London was full of fog that",
  randomIds(33, 4096, 9),
  "She",
  "The sea was",
];

/** What each prompt gets alone, computed once. */
function aloneOf(
  options: GenerateOptions,
  dtype: "f16" | "f32" = "f32",
): (prompt: Prompt) => Promise<GenerateRecord> {
  const known = new Map<Prompt, Promise<GenerateRecord>>();
  return (prompt) => {
    let record = known.get(prompt);
    if (!record) {
      known.set(prompt, record = novelLlama(dtype).then((model) => generate(model, prompt, options).record));
    }
    return record;
  };
}

const greedy = { ...GREEDY, maxTokens: 10 };
const alone = aloneOf(greedy);

for (const count of [2, 3, 9, 12]) {
  Deno.test(`generate() of ${count} prompts at once gives each what it gets alone`, async () => {
    const prompts = TEXTS.slice(0, count);
    const records = await generate(await novelLlama(), prompts, greedy).record;
    assertEquals(records.length, count);
    for (const [i, record] of records.entries()) {
      assertAgree(record, await alone(prompts[i]), `prompt ${i}`);
    }
  });
}

for (const [dtype, counts] of [["f32", [2, 12]], ["f16", [9]]] as const) {
  const options = { temperature: 0.9, topP: 0.95, seed: 3, maxTokens: 10, logprobs: 2, batchInvariant: true };
  const each = aloneOf(options, dtype);
  for (const count of counts) {
    Deno.test({
      name: `generate() of ${count} prompts in ${dtype} with batchInvariant gives the bits of each alone`,
      ignore: dtype === "f16" && !gpu.features.f16,
      async fn(): Promise<void> {
        const prompts = TEXTS.slice(0, count);
        const records = await generate(await novelLlama(dtype), prompts, options).record;
        for (const [i, record] of records.entries()) {
          assertEquals(essence(record), essence(await each(prompts[i])), `prompt ${i}`);
        }
      },
    });
  }
}

for (const count of [3, 9]) {
  Deno.test(`generate() of ${count} prompts gives the others the same bits when one is another`, async () => {
    const model = await novelLlama();
    const options = { temperature: 0.8, seed: 4, maxTokens: 8, logprobs: 1, ignoreEos: true };
    const prompts = TEXTS.slice(4, 4 + count);
    const changed = prompts.with(1, randomIds(5, 4096, 10));
    const before = await generate(model, prompts, options).record;
    const after = await generate(model, changed, options).record;
    before.forEach((record, i) => {
      if (i === 1) assertNotEquals(essence(record), essence(after[i]));
      else assertEquals(essence(record), essence(after[i]), `prompt ${i}`);
    });
  });
}

Deno.test("generate() of several prompts lets each end by itself and does not disturb the others", async () => {
  const model = await novelLlama();
  const options = { ...GREEDY, maxTokens: 24 };
  const prompts = TEXTS.slice(5, 9);
  const free = await generate(model, prompts, options).record;
  // A token that one text has early, by which others may end later or never.
  const id = free[1].ids[3];
  const word = model.tokenizer!.decode(free[2].ids.slice(5, 7));
  const ended = await generate(model, prompts, { ...options, stopIds: [id], stop: word }).record;
  const lengths = ended.map(({ ids }) => ids.length);
  assert(lengths[1] <= 3 && lengths[2] <= 7, `${lengths}`);
  assertEquals(new Set(ended.map(({ finishReason }) => finishReason)).size, 2, "one must run to its length");
  for (const [i, record] of ended.entries()) {
    assertEquals(record.ids, free[i].ids.slice(0, lengths[i]), `ids ${i}`);
    assertEquals(record.logprobs, free[i].logprobs!.slice(0, lengths[i]), `log-probabilities ${i}`);
    assert(free[i].text.startsWith(record.text), `text ${i}`);
    assert(!record.ids.includes(id) && !record.text.includes(word));
  }
});

Deno.test("generate() of several prompts draws different texts for equal prompts only by position and seed", async () => {
  const model = await novelLlama();
  const options = { temperature: 1, seed: 9, maxTokens: 8, ignoreEos: true, batchInvariant: true };
  const [a, b, c] = await generate(model, ["The", "The", " When"], options).record;
  assertEquals(a.ids, b.ids);
  assertNotEquals(a.ids, c.ids);
});

Deno.test("generate() of several prompts interleaves pieces that carry their index", async () => {
  const model = await novelLlama();
  const prompts = TEXTS.slice(5, 9);
  const { pieces, record } = await watch(generate(model, prompts, { ...GREEDY, maxTokens: 12 }));
  assertEquals(new Set(pieces.map(({ index }) => index)), new Set([0, 1, 2, 3]));
  for (const [i, { text, ids, logprobs }] of record.entries()) {
    const own = pieces.filter(({ index }) => index === i);
    assert(own.length > 1, "a text comes in more than one piece");
    assertEquals(own.map((piece) => piece.text).join(""), text);
    assertEquals(own.flatMap((piece) => piece.ids), ids);
    assertEquals(own.flatMap((piece) => piece.logprobs!), logprobs);
  }
  const first = pieces.map(({ index }) => index);
  assert(first.indexOf(3) < first.lastIndexOf(0), "pieces of the texts come in turn");
});

Deno.test("generate() of an array of one prompt has a record that is an array", async () => {
  const model = await novelLlama();
  const [record, ...more] = await generate(model, ["When Mary"], greedy).record;
  assertEquals(more, []);
  assertEquals(essence(record), essence(await alone("When Mary")));
});

Deno.test("generate() of several prompts refuses all when one is wrong", async () => {
  const model = await novelLlama();
  const { contextLength } = model.config;
  assertThrows(() => generate(model, ["fine", []]), RangeError, "The prompt is empty");
  assertThrows(() => generate(model, [[1], [4096]]), RangeError, "Token id 4096 at index 0");
  assertThrows(
    () => generate(model, ["fine", randomIds(contextLength, 4096)]),
    RangeError,
    `The prompt has ${contextLength} tokens and the model's context ${contextLength}`,
  );
  assertThrows(
    () => generate(model, ["fine", 5 as unknown as Prompt]),
    TypeError,
    "A prompt must be a text, a list of token ids or a list of chat messages: received 5",
  );
});
