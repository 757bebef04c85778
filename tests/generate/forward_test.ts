// forward(): split prefill = whole prefill, cached decoding = an uncached pass, and its options.

import { assert, assertAlmostEquals, assertEquals, assertLess, assertRejects } from "@std/assert";
import { forward, generate, score } from "../../lib/generate/mod.ts";
import { describeModel } from "../../lib/models/mod.ts";
import { randomIds } from "../harness/random_llama.ts";
import { largest, largestDifference, logSoftmax, NOVEL_LLAMA, novelLlama, rowOf } from "../harness/models.ts";

const model = await novelLlama("f32");
const { vocabularySize, hiddenSize, contextLength } = model.config;

for (const sliceRows of [1, 7, 32, 64]) {
  Deno.test(`forward() in slices of ${sliceRows} rows gives what a whole prefill gives`, async () => {
    const ids = randomIds(sliceRows === 1 ? 35 : 131, vocabularySize, 3);
    const whole = await forward(model, ids, { hidden: true });
    const split = await forward(model, ids, { hidden: true, sliceRows });
    assertEquals(whole.logits.length, ids.length * vocabularySize);
    assertEquals(whole.hidden!.length, ids.length * hiddenSize);
    assertLess(largestDifference(split.logits, whole.logits), 1e-4);
    assertLess(largestDifference(split.hidden!, whole.hidden!), 1e-4);
  });
}

Deno.test("forward() of a prompt over several default slices gives what small slices give", async () => {
  const ids = randomIds(1100, vocabularySize, 4);
  const { logits } = await forward(model, ids, { lastOnly: true });
  assertEquals(logits.length, vocabularySize);
  const split = await forward(model, ids, { lastOnly: true, sliceRows: 96 });
  assertLess(largestDifference(split.logits, logits), 1e-4);
});

Deno.test("forward() with lastOnly gives the last row of all logits", async () => {
  const ids = randomIds(40, vocabularySize, 5);
  const all = await forward(model, ids);
  assertEquals(all.hidden, undefined);
  const last = await forward(model, ids, { lastOnly: true });
  assertLess(largestDifference(last.logits, rowOf(all.logits, 39, vocabularySize)), 1e-5);
});

Deno.test("generate() step by step over its cache agrees with forward() without one", async () => {
  const prompt = model.tokenizer!.encode("The moor was dark, and the wind");
  const runs = [{ temperature: 0 }, { temperature: 0.9, seed: 11 }];
  for (const sampling of runs) {
    const { ids, logprobs } = await generate(model, prompt, {
      maxTokens: 72,
      ...sampling,
      logprobs: 5,
      ignoreEos: true,
    }).record;
    assertEquals(ids.length, 72);
    const { logits } = await forward(model, [...prompt, ...ids.slice(0, -1)]);
    ids.forEach((id, i) => {
      const row = rowOf(logits, prompt.length - 1 + i, vocabularySize);
      const { index, margin } = largest(row);
      if (sampling.temperature === 0 && margin > 1e-3) assertEquals(id, index, `token ${i}`);
      const expected = logSoftmax(row);
      const { id: chosen, logprob, top } = logprobs![i];
      assertEquals(chosen, id);
      assertAlmostEquals(logprob, expected[id], 1e-4);
      assertEquals(top.length, 5);
      const best = [...expected].sort((a, b) => b - a);
      top.forEach((entry, rank) => {
        assertAlmostEquals(entry.logprob, best[rank], 1e-4);
        assertAlmostEquals(entry.logprob, expected[entry.id], 1e-4);
        if (rank > 0) assert(entry.logprob <= top[rank - 1].logprob, "top tokens are in descending order");
      });
    });
  }
});

Deno.test("generate() after a prompt over one slice agrees with forward()", async () => {
  const prompt = randomIds(700, vocabularySize, 6);
  const options = { maxTokens: 6, temperature: 0, logprobs: 0, ignoreEos: true };
  const { ids, logprobs } = await generate(model, prompt, options).record;
  const { logits } = await forward(model, [...prompt, ...ids]);
  ids.forEach((id, i) => {
    const row = rowOf(logits, prompt.length - 1 + i, vocabularySize);
    const { index, margin } = largest(row);
    if (margin > 1e-3) assertEquals(id, index, `token ${i}`);
    assertAlmostEquals(logprobs![i].logprob, logSoftmax(row)[id], 1e-4);
    assertEquals(logprobs![i].top, []);
  });
});

Deno.test("score() is minus the log-probabilities of forward(), in one window and in several", async () => {
  const text =
    "It was a bright cold day in April, and the clocks were striking thirteen. He went up the stairs.";
  const ids = model.tokenizer!.encode(text);
  const { logits } = await forward(model, ids);
  const expected = ids.slice(1).map((id, i) => -logSoftmax(rowOf(logits, i, vocabularySize))[id]);
  const one = await score(model, text);
  assertEquals(one.tokens, ids.length - 1);
  assertEquals([one.window, one.stride], [contextLength, contextLength / 2]);
  expected.forEach((nll, i) => assertAlmostEquals(one.nll[i], nll, 1e-4));
  const sum = expected.reduce((a, b) => a + b, 0);
  assertAlmostEquals(one.meanNll, sum / expected.length, 1e-5);
  assertAlmostEquals(one.perplexity, Math.exp(one.meanNll), 1e-6);
  const bytes = text.length - model.tokenizer!.bytesOf(ids[0]).length;
  assertAlmostEquals(one.bitsPerByte!, sum / Math.LN2 / bytes, 1e-5);

  const told: number[][] = [];
  const window = 9, stride = 4;
  const many = await score(model, ids, { window, stride, onProgress: (...counts) => told.push(counts) });
  assertEquals(many.bitsPerByte, null);
  assertEquals(told.at(-1), [ids.length, ids.length]);
  // Token t is scored by the first window that reaches it.
  for (let t = 1; t < ids.length; t++) {
    const start = Math.max(0, Math.ceil((t - window + 1) / stride)) * stride;
    const part = await forward(model, ids.slice(start, t), { lastOnly: true });
    assertAlmostEquals(many.nll[t - 1], -logSoftmax(part.logits)[ids[t]], 1e-4);
  }
});

Deno.test("forward() and score() refuse what is out of range", async () => {
  const refused: [Promise<unknown>, string][] = [
    [forward(model, []), "The prompt is empty"],
    [forward(model, [5, vocabularySize]), `Token id ${vocabularySize} at index 1 is out of range`],
    [forward(model, [-1]), "Token id -1 at index 0 is out of range"],
    [forward(model, [1.5]), "Token id 1.5 at index 0 is out of range"],
    [forward(model, new Array(contextLength + 1).fill(1)), `over the model's context of ${contextLength}`],
    [forward(model, [1], { sliceRows: 0 }), "sliceRows must be a whole number of at least 1"],
    [forward(model, [1], { sliceRows: 1.5 }), "sliceRows must be a whole number of at least 1"],
    [score(model, [1]), "Scoring needs at least two tokens"],
    [score(model, []), "The prompt is empty"],
    [score(model, [1, 2], { window: 1 }), "window must be from 2"],
    [score(model, [1, 2], { window: contextLength + 1 }), `window must be from 2 to ${contextLength}`],
    [score(model, [1, 2], { window: 8, stride: 8 }), "stride must be from 1 to 7"],
    [score(model, [1, 2], { stride: 0 }), "stride must be from 1"],
  ];
  for (const [promise, message] of refused) await assertRejects(() => promise, RangeError, message);
});

Deno.test("forward() and score() of a model that was only described say so", async () => {
  const described = await describeModel(NOVEL_LLAMA);
  await assertRejects(() => forward(described, [1]), Error, "was only described");
  await assertRejects(() => score(described, [1, 2]), Error, "was only described");
});

Deno.test("score() ends with the reason of an aborted signal", async () => {
  const abort = new AbortController();
  const onProgress = () => abort.abort(new Error("enough"));
  const ids = randomIds(64, vocabularySize);
  await assertRejects(
    () => score(model, ids, { window: 16, stride: 8, onProgress, signal: abort.signal }),
    Error,
    "enough",
  );
});
