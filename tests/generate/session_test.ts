// Sessions: one sequence over several calls equals one run over all of it; forks, growth, order of calls, failures.

import { assert, assertEquals, assertGreater, assertRejects, assertThrows } from "@std/assert";
import { generate, type GenerateOptions, session } from "../../lib/generate/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { randomIds } from "../harness/random_llama.ts";
import { assertAgree, essence, novelLlama, watch } from "../harness/models.ts";

const gpu = await sharedGpu();
const model = await novelLlama("f32");
const { contextLength, vocabularySize } = model.config;
const tokenizer = model.tokenizer!;
const GREEDY: GenerateOptions = { temperature: 0, logprobs: 2, ignoreEos: true };
const SAMPLED: GenerateOptions = { temperature: 0.9, topP: 0.95, seed: 21, logprobs: 2, ignoreEos: true };

Deno.test("session() gives what one run over all its tokens gives", async () => {
  using turns = session(model);
  const first = await turns.generate("When Mary", { ...GREEDY, maxTokens: 10 }).record;
  assertEquals(first.promptIds, tokenizer.encode("When Mary"));
  turns.append(" looked up,");
  turns.append([264, 265]);
  const second = await turns.generate(" and then", { ...GREEDY, maxTokens: 12 }).record;
  const added = [
    ...tokenizer.encode(" looked up,", { bos: false }),
    264,
    265,
    ...tokenizer.encode(" and then", { bos: false }),
  ];
  assertEquals(second.promptIds, added);
  assertEquals(second.usage, { promptTokens: added.length, completionTokens: 12 });
  const all = [...first.promptIds, ...first.ids, ...added];
  assertEquals(turns.ids, [...all, ...second.ids]);
  assertAgree(second, await generate(model, all, { ...GREEDY, maxTokens: 12 }).record);

  // Going on without a prompt continues the text.
  const third = await turns.generate(undefined, { ...GREEDY, maxTokens: 4 }).record;
  assertEquals([third.promptIds, third.usage.promptTokens], [[], 0]);
  assertAgree(third, await generate(model, turns.ids.slice(0, -4), { ...GREEDY, maxTokens: 4 }).record);
});

Deno.test("session() draws by seed and position, as one run does", async () => {
  const whole = await generate(model, "When Mary", { ...SAMPLED, maxTokens: 16 }).record;
  using turns = session(model);
  await turns.generate("When Mary", { ...SAMPLED, maxTokens: 7 }).record;
  const rest = await turns.generate(undefined, { ...SAMPLED, maxTokens: 9 }).record;
  assertEquals([...turns.ids], [...whole.promptIds, ...whole.ids]);
  assertEquals(rest.ids, whole.ids.slice(7));
});

Deno.test("session() with a cache that grows gives the bits of one that was large enough", async () => {
  const turn = async (cacheTokens: number) => {
    using turns = session(model, { cacheTokens });
    const records = [];
    const sizes = [];
    for (const [prompt, maxTokens] of [["The", 5], [" and the wind blew", 40], [" over", 90]] as const) {
      records.push(essence(await turns.generate(prompt, { ...SAMPLED, maxTokens }).record));
      sizes.push(turns.cacheBytes);
    }
    return { records, sizes };
  };
  const small = await turn(1);
  const large = await turn(512);
  assertEquals(small.records, large.records);
  assert(small.sizes[0] < small.sizes[1] && small.sizes[1] < small.sizes[2], `${small.sizes}`);
  assertEquals(new Set(large.sizes).size, 1);
  assertGreater(large.sizes[0], small.sizes[0]);
});

Deno.test("session() keeps its cache when a call asks for other tables", async () => {
  const options = [
    SAMPLED,
    { ...SAMPLED, repetitionPenalty: 1.3, logprobs: 5 },
    { ...SAMPLED, batchInvariant: true },
  ];
  using turns = session(model, { cacheTokens: 256 });
  for (const option of options) {
    const before = [...turns.ids];
    const record = await turns.generate(before.length ? undefined : "It was", { ...option, maxTokens: 8 })
      .record;
    const alone = await generate(model, before.length ? before : "It was", { ...option, maxTokens: 8 })
      .record;
    assertEquals(record.ids, alone.ids);
  }
});

Deno.test("session.fork() goes on by itself from where the session is", async () => {
  const second = (turns: ReturnType<typeof session>, prompt: string) =>
    turns.generate(prompt, { ...SAMPLED, maxTokens: 10 }).record.then(essence);
  const straight = async (prompt: string) => {
    using turns = session(model, { cacheTokens: 64 });
    await turns.generate("The old house", { ...SAMPLED, maxTokens: 9 }).record;
    return await second(turns, prompt);
  };
  const [left, right] = [await straight(" left"), await straight(" right")];

  const turns = session(model, { cacheTokens: 64 });
  await turns.generate("The old house", { ...SAMPLED, maxTokens: 9 }).record;
  using fork = await turns.fork();
  assertEquals(fork.ids, turns.ids);
  assertEquals(await second(turns, " left"), left);
  turns.dispose();
  assertEquals(await second(fork, " right"), right);

  using empty = session(model);
  using copy = await empty.fork();
  assertEquals(copy.ids, []);
  assertEquals((await copy.generate("When", { ...GREEDY, maxTokens: 2 }).record).ids.length, 2);
  assertEquals(empty.ids, []);
});

Deno.test("session() serves calls in the order in which they were made", async () => {
  const inTurn = async () => {
    using turns = session(model, { cacheTokens: 128 });
    await turns.generate("One", { ...SAMPLED, maxTokens: 6 }).record;
    turns.append(" two");
    const fork = await turns.fork();
    const record = await turns.generate(" three", { ...SAMPLED, maxTokens: 6 }).record;
    const forked = [...fork.ids];
    fork.dispose();
    return { ids: [...turns.ids], record: essence(record), forked };
  };
  const atOnce = async () => {
    const turns = session(model, { cacheTokens: 128 });
    const first = turns.generate("One", { ...SAMPLED, maxTokens: 6 });
    turns.append(" two");
    const fork = turns.fork();
    const second = turns.generate(" three", { ...SAMPLED, maxTokens: 6 });
    turns.dispose();
    const [, record, other] = await Promise.all([first.record, second.record, fork]);
    const forked = [...other.ids];
    other.dispose();
    return { ids: [...turns.ids], record: essence(record), forked };
  };
  const expected = await inTurn();
  assertEquals(await atOnce(), expected);
  assertEquals(gpu.memory.holders(), { weights: model.store!.bytes });
});

Deno.test("session() streams pieces whose texts and ids are the record's", async () => {
  using turns = session(model);
  await turns.generate("When", { ...GREEDY, maxTokens: 3 }).record;
  const { pieces, record } = await watch(turns.generate(" the", { ...GREEDY, maxTokens: 9 }));
  assertEquals(pieces.map(({ text }) => text).join(""), record.text);
  assertEquals(pieces.flatMap(({ ids }) => ids), record.ids);
  assert(pieces.every(({ index }) => index === 0));
});

Deno.test("session() after a stop token wants a prompt, and goes on from the text without the token", async () => {
  const free = await generate(model, "When Mary", { ...GREEDY, maxTokens: 12 }).record;
  const end = free.ids.findIndex((id, i) => i >= 4 && free.ids.indexOf(id) === i);
  using turns = session(model);
  const record = await turns.generate("When Mary", { ...GREEDY, maxTokens: 12, stopIds: [free.ids[end]] })
    .record;
  assertEquals([record.finishReason, record.ids], ["stop", free.ids.slice(0, end)]);
  await assertRejects(
    () => turns.generate(undefined, GREEDY).record,
    RangeError,
    "The text has ended with a stop token: give a prompt",
  );
  const next = await turns.generate(" yes", { ...GREEDY, maxTokens: 6 }).record;
  const all = [...record.promptIds, ...record.ids, ...tokenizer.encode(" yes", { bos: false })];
  assertEquals(turns.ids, [...all, ...next.ids]);
  assertAgree(next, await generate(model, all, { ...GREEDY, maxTokens: 6 }).record);
});

Deno.test("session() does not add the prompt of a call that fails", async () => {
  using turns = session(model);
  await assertRejects(() => turns.generate(undefined, GREEDY).record, RangeError, "The session is empty");
  await assertRejects(
    () => turns.generate("One", { maxTokens: contextLength }).record,
    RangeError,
    `are over the model's context of ${contextLength}`,
  );
  assertEquals([turns.ids, turns.cacheBytes], [[], 0]);
  await turns.generate("One", { ...GREEDY, maxTokens: 2 }).record;
  const before = [...turns.ids];
  const long = randomIds(contextLength, vocabularySize);
  await assertRejects(
    () => turns.generate(long, GREEDY).record,
    RangeError,
    `model's context ${contextLength}`,
  );
  assertThrows(() => turns.generate("x", { maxTokens: 0 }), RangeError, "maxTokens must be");
  assertThrows(() => turns.generate([vocabularySize]), RangeError, "out of range");
  assertThrows(() => turns.append([]), RangeError, "The prompt is empty");
  assertEquals(turns.ids, before);
  const record = await turns.generate(" two", { ...GREEDY, maxTokens: 2 }).record;
  assertEquals(record.promptIds, tokenizer.encode(" two", { bos: false }));
});

Deno.test("session() refuses a cache over the context, and every call after dispose", async () => {
  for (const cacheTokens of [0, 1.5, contextLength + 1, NaN]) {
    assertThrows(
      () => session(model, { cacheTokens }),
      RangeError,
      `cacheTokens must be from 1 to ${contextLength}: current value is ${cacheTokens}`,
    );
  }
  const turns = session(model);
  await turns.generate("One", { ...GREEDY, maxTokens: 2 }).record;
  turns.dispose();
  turns.dispose();
  assertEquals(gpu.memory.holders(), { weights: model.store!.bytes });
  const said = "The session was disposed of";
  assertThrows(() => turns.generate("x"), Error, said);
  assertThrows(() => turns.append("x"), Error, said);
  assertThrows(() => turns.fork(), Error, said);
});
