// From tokens to text: pieces, characters of several tokens, stop ids and stop strings, the record's fields.

import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { generate, type GenerateOptions } from "../../lib/generate/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { novelLlama, watch } from "../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";

const gpu = await sharedGpu();
const model = await novelLlama("f32");
const tokenizer = model.tokenizer!;
const [EOS] = model.defaults.eosIds;
const GREEDY: GenerateOptions = { temperature: 0, maxTokens: 30 };
const PROMPT = "The moor was dark, and the wind";

/** Sampling that writes these tokens one after the other, then what the model wants. */
function dictate(ids: readonly number[]): GenerateOptions {
  const logitBias = Object.fromEntries(ids.map((id, i) => [id, 4e5 - 1e4 * i]));
  return { temperature: 0, logitBias, presencePenalty: 5e5 };
}

Deno.test("generate() tells all in its record", async () => {
  const record = await generate(model, PROMPT, { ...GREEDY, seed: 77, logprobs: 1 }).record;
  assertEquals(record.promptIds, tokenizer.encode(PROMPT));
  assertEquals(record.ids.length, 30);
  assertEquals(record.text, tokenizer.decode(record.ids));
  assertEquals([record.finishReason, record.seed], ["length", 77]);
  assertEquals(record.usage, { promptTokens: record.promptIds.length, completionTokens: 30 });
  assertEquals(record.logprobs!.map(({ id }) => id), record.ids);
  const { loadMs, timeToFirstTokenMs, prefillTokensPerSecond, decodeTokensPerSecond } = record.timing;
  assertEquals(loadMs, model.loadMs);
  for (const time of [timeToFirstTokenMs, prefillTokensPerSecond, decodeTokensPerSecond]) {
    assert(time > 0 && time < 1e7, `${time}`);
  }
  const { weights, cache, activations, peak } = record.bytes;
  assertEquals(weights, model.store!.bytes);
  assert(cache > 0 && activations > 0 && peak >= weights + cache + activations);
  assertEquals((await generate(model, PROMPT, GREEDY).record).logprobs, undefined);
});

Deno.test("generate() without maxTokens makes 256 tokens, or what the context leaves", async () => {
  using small = await loadRandomLlama(gpu, randomLlama({ max_position_embeddings: 300 }));
  const all = await generate(small, [9], { temperature: 0 }).record;
  assertEquals([all.ids.length, all.finishReason], [256, "length"]);
  const long = randomIds(297, 64);
  const rest = await generate(small, long, { temperature: 0 }).record;
  assertEquals([rest.ids.length, rest.finishReason], [3, "length"]);
  const full = await generate(small, long, { temperature: 0, maxTokens: 3 }).record;
  assertEquals(full.ids, rest.ids);
});

Deno.test("generate() reads back at most once in 8 tokens when nobody watches", async () => {
  for (const maxTokens of [16, 24, 40, 100]) {
    const { ids, readbacks } = await generate(model, PROMPT, { temperature: 0, maxTokens, ignoreEos: true })
      .record;
    assertEquals(ids.length, maxTokens);
    assertGreater(readbacks, 0);
    assertLessOrEqual(readbacks, maxTokens / 8);
  }
});

Deno.test("generate() gives pieces that add up to the record's text, bytes and ids", async () => {
  const { pieces, record } = await watch(generate(model, PROMPT, { ...GREEDY, logprobs: 1, runAhead: 2 }));
  assertGreater(pieces.length, 5);
  assertEquals(pieces.map(({ text }) => text).join(""), record.text);
  assertEquals(pieces.flatMap(({ ids }) => ids), record.ids);
  assertEquals(pieces.flatMap(({ logprobs }) => logprobs!), record.logprobs);
  const bytes = pieces.flatMap((piece) => [...piece.bytes]);
  assertEquals(bytes, [...new TextEncoder().encode(record.text)]);
  assert(pieces.every(({ index, ids }) => index === 0 && ids.length > 0));
});

Deno.test("generate() never splits a character between pieces", async () => {
  for (const character of ["€", "😀", "ї"]) {
    const ids = tokenizer.encode(character, { bos: false });
    assertGreater(ids.length, 1);
    const run = generate(model, PROMPT, { ...dictate(ids), maxTokens: ids.length + 2, runAhead: 1 });
    const { pieces, record } = await watch(run);
    assertEquals(record.ids.slice(0, ids.length), ids);
    assert(record.text.startsWith(character) && !record.text.includes("\ufffd"), record.text);
    assertEquals(pieces.map(({ text }) => text).join(""), record.text);
    const texts = pieces.map((piece) => new TextDecoder("utf-8", { fatal: true }).decode(piece.bytes));
    assertEquals(texts, pieces.map(({ text }) => text));
    // The ids come at once, the text with the token that completes it.
    assertEquals(pieces.findIndex(({ text }) => text.includes(character)), ids.length - 1);
    // Cut in the middle, what cannot be completed any more becomes one replacement character.
    const cut = await generate(model, PROMPT, { ...dictate(ids), maxTokens: ids.length - 1 }).record;
    assertEquals([cut.ids, cut.text], [ids.slice(0, -1), "\ufffd"]);
  }
});

Deno.test("generate() completes a character that the prompt began", async () => {
  const [first, ...rest] = tokenizer.encode("€", { bos: false });
  const { text, ids } = await generate(model, [...tokenizer.encode(PROMPT), first], {
    ...dictate(rest),
    maxTokens: 2,
  }).record;
  assertEquals([text, ids], ["€", rest]);
});

Deno.test("generate() ends at a stop id, which is neither in ids nor in the text", async () => {
  const free = await generate(model, PROMPT, GREEDY).record;
  const end = free.ids.findIndex((id, i) => i >= 9 && free.ids.indexOf(id) === i);
  for (const runAhead of [1, 5, 32]) {
    const stopIds = [4000, free.ids[end], 4001];
    const { pieces, record } = await watch(
      generate(model, PROMPT, { ...GREEDY, stopIds, runAhead, logprobs: 1 }),
    );
    assertEquals([record.finishReason, record.ids], ["stop", free.ids.slice(0, end)]);
    assertEquals(record.text, tokenizer.decode(free.ids.slice(0, end)));
    assertEquals(record.usage.completionTokens, end);
    assertEquals(record.logprobs!.length, end);
    assertEquals(pieces.flatMap(({ ids }) => ids), record.ids);
    assertEquals(pieces.map(({ text }) => text).join(""), record.text);
  }
  // One that comes first of all leaves nothing.
  const none = await watch(generate(model, PROMPT, { ...GREEDY, stopIds: [free.ids[0]] }));
  assertEquals([none.record.ids, none.record.text, none.pieces], [[], "", []]);
  assertEquals(none.record.finishReason, "stop");
});

Deno.test("generate() ends at the model's own end of text, unless it is to be ignored", async () => {
  const wanted = tokenizer.encode(" yes", { bos: false });
  const options = { ...dictate([...wanted, EOS]), maxTokens: 8 };
  const ended = await generate(model, PROMPT, options).record;
  assertEquals([ended.ids, ended.text, ended.finishReason], [wanted, " yes", "stop"]);
  const { ids, text, finishReason } = await generate(model, PROMPT, { ...options, ignoreEos: true }).record;
  assertEquals([ids.length, ids.slice(0, 2), finishReason], [8, [...wanted, EOS], "length"]);
  // A special token has no text.
  assertEquals(text, tokenizer.decode(ids, { skipSpecialTokens: true }));
  // Own stop ids stand in the place of the model's.
  const own = await generate(model, PROMPT, { ...options, stopIds: [4000] }).record;
  assertEquals(own.ids, ids);
  // The 64 stop ids that are allowed are all looked at.
  const many = Array.from({ length: 64 }, (_, i) => i === 63 ? EOS : 4000 + i);
  assertEquals((await generate(model, PROMPT, { ...options, stopIds: many }).record).ids, wanted);
});

Deno.test("generate() ends before a stop string, wherever the tokens are cut", async () => {
  const free = await generate(model, PROMPT, GREEDY).record;
  const lengths = free.ids.map((_, i) => tokenizer.decode(free.ids.slice(0, i + 1)).length);
  // From the middle of one token into the middle of a later one.
  const begin = lengths[8] - 1;
  const stop = free.text.slice(begin, lengths[10] + 1);
  const at = free.text.indexOf(stop);
  for (const runAhead of [1, 6, 64]) {
    const { pieces, record } = await watch(
      generate(model, PROMPT, { ...GREEDY, stop: ["never this", stop], runAhead }),
    );
    assertEquals([record.text, record.finishReason], [free.text.slice(0, at), "stop"]);
    assertEquals(pieces.map(({ text }) => text).join(""), record.text);
    // The ids go on to the token that completes the stop string.
    const count = lengths.findIndex((length) => length >= at + stop.length) + 1;
    assertEquals(record.ids, free.ids.slice(0, count));
    assertEquals(pieces.flatMap(({ ids }) => ids), record.ids);
  }
});

Deno.test("generate() gives out at the end what could have become a stop string", async () => {
  const free = await generate(model, PROMPT, GREEDY).record;
  const stop = `${free.text.slice(-4)} and this never comes`;
  const { pieces, record } = await watch(generate(model, PROMPT, { ...GREEDY, stop, runAhead: 1 }));
  assertEquals([record.text, record.finishReason], [free.text, "length"]);
  assertEquals(pieces.map(({ text }) => text).join(""), free.text);
});

Deno.test("generate() takes chat messages through a chat template", async () => {
  const chatTemplate = await Deno.readTextFile(
    fromFileUrl(new URL("../fixtures/chatml.jinja", import.meta.url)),
  );
  const messages = [{ role: "user", content: "Who lives here? <|endoftext|>" }] as const;
  const { promptIds, ids } = await generate(model, messages, { ...GREEDY, maxTokens: 3, chatTemplate })
    .record;
  const text = "<|im_start|>user\nWho lives here? <|endoftext|><|im_end|>\n<|im_start|>assistant\n";
  assertEquals(tokenizer.decode(promptIds), text);
  assert(!promptIds.includes(EOS), "a special token typed in a message stays text");
  assertEquals(ids.length, 3);
  const batch = await generate(model, [messages, "x"], { ...GREEDY, maxTokens: 3, chatTemplate }).record;
  assertEquals(batch.map((record) => record.promptIds), [promptIds, tokenizer.encode("x")]);
});

Deno.test("generate() sets BOS before a text when asked, and only then", async () => {
  const first = async (bos: boolean | undefined) =>
    (await generate(model, "When", { ...GREEDY, maxTokens: 1, ...(bos === undefined ? {} : { bos }) }).record)
      .promptIds;
  const plain = tokenizer.encode("When", { bos: false });
  assertEquals(await first(true), [tokenizer.bosId!, ...plain]);
  assertEquals(await first(false), plain);
  assertEquals(await first(undefined), tokenizer.encode("When"));
});

Deno.test("generate() runs side by side with another run", async () => {
  const expected = [
    await generate(model, "When Mary", GREEDY).record,
    await generate(model, PROMPT, GREEDY).record,
  ];
  const runs = [generate(model, "When Mary", GREEDY), generate(model, PROMPT, GREEDY)];
  const records = await Promise.all(runs.map((run) => run.record));
  assertEquals(records.map(({ ids }) => ids), expected.map(({ ids }) => ids));
  assertEquals(gpu.memory.holders(), { weights: model.store!.bytes });
});
