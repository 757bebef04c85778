// The run as a value: iterating early, late, never, twice or not to the end; aborts; failures in the middle.

import {
  assert,
  assertEquals,
  assertGreater,
  assertInstanceOf,
  assertLess,
  assertRejects,
} from "@std/assert";
import { generate, type GenerateOptions, type Piece, session } from "../../lib/generate/mod.ts";
import { type Gpu, GpuLostError, openGpu } from "../../lib/gpu/mod.ts";
import { describeModel, loadModel } from "../../lib/models/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { essence, NOVEL_LLAMA, novelLlama, watch } from "../harness/models.ts";

const gpu = await sharedGpu();
const model = await novelLlama("f32");
const GREEDY: GenerateOptions = { temperature: 0, maxTokens: 40, ignoreEos: true };
const PROMPT = "The moor was dark, and the wind";
const expected = essence(await generate(model, PROMPT, GREEDY).record);

function assertReleased(): void {
  assertEquals(gpu.memory.holders(), { weights: model.store!.bytes });
}

Deno.test("generate() that nobody iterates over ends and frees what it held", async () => {
  assertEquals(essence(await generate(model, PROMPT, GREEDY).record), expected);
  assertReleased();
});

Deno.test("generate() still gives its pieces when it has ended", async () => {
  const run = generate(model, PROMPT, GREEDY);
  await run.record;
  const { pieces } = await watch(run);
  assertEquals(pieces.flatMap(({ ids }) => ids), expected.ids);
  assertEquals(pieces.map(({ text }) => text).join(""), expected.text);
  assertEquals((await watch(run)).pieces, []);
});

Deno.test("generate() gives all pieces when the iteration begins late", async () => {
  const run = generate(model, PROMPT, GREEDY);
  await new Promise((resolve) => setTimeout(resolve, 150));
  const { pieces, record } = await watch(run);
  assertEquals(pieces.flatMap(({ ids }) => ids), expected.ids);
  assertEquals(essence(record), expected);
});

Deno.test("generate() watched from two sides gives each piece to one of them and ends both", async () => {
  const run = generate(model, PROMPT, { ...GREEDY, runAhead: 2 });
  const [left, right] = await Promise.all([Array.fromAsync(run), Array.fromAsync(run)]);
  const ids = [...left, ...right].flatMap((piece) => piece.ids);
  assertEquals(ids.toSorted(), expected.ids!.toSorted());
});

Deno.test("generate() whose iteration is broken off is aborted and frees what it held", async () => {
  const run = generate(model, PROMPT, { ...GREEDY, runAhead: 2 });
  const seen: Piece[] = [];
  for await (const piece of run) if (seen.push(piece) === 3) break;
  assertReleased();
  const { ids, text, finishReason, usage } = await run.record;
  assertEquals(finishReason, "aborted");
  const told = seen.flatMap((piece) => piece.ids).length;
  assert(ids.length >= told && ids.length < 40, `${told} seen, ${ids.length} made`);
  assertEquals(ids, expected.ids!.slice(0, ids.length));
  assert(expected.text!.startsWith(text));
  assertEquals(usage.completionTokens, ids.length);
  assertEquals((await watch(run)).pieces, []);
});

Deno.test("generate() is aborted when the iteration ends by an error of the caller", async () => {
  const run = generate(model, PROMPT, { ...GREEDY, runAhead: 2 });
  const iterate = async () => {
    for await (const _ of run) throw new Error("no more");
  };
  await assertRejects(iterate, Error, "no more");
  assertEquals((await run.record).finishReason, "aborted");
  assertReleased();
});

Deno.test("generate() with a signal that is aborted before makes at most one token", async () => {
  const { pieces, record } = await watch(generate(model, PROMPT, { ...GREEDY, signal: AbortSignal.abort() }));
  assertEquals(record.finishReason, "aborted");
  assertLess(record.ids.length, 2);
  assertEquals(pieces.flatMap(({ ids }) => ids), record.ids);
  assertReleased();
});

Deno.test("generate() ends every text when its signal is aborted in the middle", async () => {
  for (const prompt of [[PROMPT], [PROMPT, "When Mary", "She"]]) {
    const abort = new AbortController();
    const run = generate(model, prompt, { ...GREEDY, signal: abort.signal, runAhead: 4 });
    let seen = 0;
    for await (const { ids } of run) if ((seen += ids.length) >= 9) abort.abort();
    const records = await run.record;
    for (const { finishReason, ids } of records) {
      assertEquals(finishReason, "aborted");
      assert(ids.length > 0 && ids.length < 40, `${ids.length}`);
    }
    assertEquals(records.reduce((sum, { ids }) => sum + ids.length, 0), seen);
    assertEquals(records[0].ids, expected.ids!.slice(0, records[0].ids.length));
    assertReleased();
  }
  // One that comes after the end changes nothing.
  const late = new AbortController();
  const run = generate(model, PROMPT, { ...GREEDY, signal: late.signal });
  await run.record;
  late.abort();
  assertEquals(essence(await run.record), expected);
});

Deno.test("generate() gives out what it held back for a stop string when it is aborted", async () => {
  const abort = new AbortController();
  const stop = `${expected.text} and this never comes`;
  const run = generate(model, PROMPT, { ...GREEDY, stop, signal: abort.signal, runAhead: 4 });
  const pieces: Piece[] = [];
  for await (const piece of run) if (pieces.push(piece) === 3) abort.abort();
  const { ids, text, finishReason } = await run.record;
  assertEquals([finishReason, pieces[0].text], ["aborted", ""]);
  assertEquals(text, model.tokenizer!.decode(ids));
  assertEquals(pieces.map((piece) => piece.text).join(""), text);
});

Deno.test("generate() that nobody iterates over ends by its signal", async () => {
  const abort = new AbortController();
  const run = generate(model, PROMPT, { ...GREEDY, maxTokens: 2000, signal: abort.signal });
  setTimeout(() => abort.abort(), 100);
  const { finishReason, ids } = await run.record;
  assertEquals(finishReason, "aborted");
  assertLess(ids.length, 1500);
  assertReleased();
});

/** A device of its own with the model on it, for tests that break it. */
async function own(work: (gpu: Gpu, model: Awaited<ReturnType<typeof loadModel>>) => Promise<void>) {
  using gpu = await openGpu();
  using model = await loadModel(gpu, NOVEL_LLAMA, { dtype: "f32" });
  await work(gpu, model);
}

Deno.test("generate() rejects record and iteration when the device is lost in the middle", async () => {
  await own(async (gpu, model) => {
    const run = generate(model, PROMPT, { ...GREEDY, maxTokens: 400, runAhead: 4 });
    const turns = session(model);
    const waiting = turns.generate(PROMPT, { ...GREEDY, maxTokens: 400 });
    let seen = 0;
    const error = await assertRejects(async () => {
      for await (const { ids } of run) {
        seen += ids.length;
        if (seen > 8) gpu.device.destroy();
      }
    }, GpuLostError);
    assertGreater(seen, 8);
    assert(error.message.includes("Open it again with openGpu"), error.message);
    for (const { record } of [run, waiting, generate(model, PROMPT, GREEDY), turns.generate("x", GREEDY)]) {
      assertInstanceOf(await record.then(() => undefined, (reason) => reason), GpuLostError);
    }
    turns.dispose();
    assertEquals(gpu.memory.holders(), { weights: model.store!.bytes });
  });
});

Deno.test("generate() rejects when the device is disposed of in the middle", async () => {
  await own(async (gpu, model) => {
    const run = generate(model, PROMPT, { ...GREEDY, maxTokens: 400, runAhead: 4 });
    const iterate = async () => {
      for await (const _ of run) gpu[Symbol.dispose]();
    };
    await assertRejects(iterate, GpuLostError);
    await assertRejects(() => run.record, GpuLostError);
    await assertRejects(() => generate(model, PROMPT, GREEDY).record, GpuLostError, "disposed of");
  });
});

Deno.test("generate() does not begin on a model that was disposed of or only described", async () => {
  await own(async (gpu, model) => {
    const kept = generate(model, PROMPT, { ...GREEDY, maxTokens: 3 });
    const turns = session(model);
    const before = turns.generate(PROMPT, { ...GREEDY, maxTokens: 3 });
    await kept.record;
    await before.record;
    model[Symbol.dispose]();
    model[Symbol.dispose]();
    // The session holds the weights until it is disposed of itself.
    assertEquals((await turns.generate("x", { ...GREEDY, maxTokens: 3 }).record).ids.length, 3);
    turns.dispose();
    assertEquals(gpu.memory.holders(), {});
    for (const begin of [() => generate(model, PROMPT), () => session(model)]) {
      await assertRejects(async () => await begin(), Error, "The model was disposed of");
    }
  });
  await own(async (_, model) => {
    // Between the call and the beginning of its work.
    const run = generate(model, PROMPT, GREEDY);
    model[Symbol.dispose]();
    await assertRejects(() => run.record, Error, "The model was disposed of");
  });
  const described = await describeModel(NOVEL_LLAMA);
  for (const begin of [() => generate(described, PROMPT), () => session(described)]) {
    await assertRejects(async () => await begin(), Error, "load it with loadModel");
  }
});
