// Sampling over whole generations: penalties and bias against an oracle on forward()'s logits, seeds, and the limits
// that top-k, top-p and min-p set.

import { assert, assertEquals, assertGreater, assertLess, assertNotEquals } from "@std/assert";
import { forward, generate, type GenerateOptions } from "../../lib/generate/mod.ts";
import { largest, logSoftmax, novelLlama, rowOf } from "../harness/models.ts";

const model = await novelLlama("f32");
const { vocabularySize } = model.config;
const prompt = model.tokenizer!.encode('"I do not know," said the man, and the man');

/** Logits as edited before sampling, in f64. */
function edited(
  logits: Float32Array,
  promptIds: readonly number[],
  newIds: readonly number[],
  options: GenerateOptions,
): Float64Array {
  const edits = Float64Array.from(logits);
  for (const [id, bias] of Object.entries(options.logitBias ?? {})) edits[Number(id)] += bias;
  const { repetitionPenalty = 1, frequencyPenalty = 0, presencePenalty = 0 } = options;
  for (const id of new Set([...promptIds, ...newIds])) {
    edits[id] = edits[id] > 0 ? edits[id] / repetitionPenalty : edits[id] * repetitionPenalty;
  }
  for (const id of newIds) edits[id] -= frequencyPenalty;
  for (const id of new Set(newIds)) edits[id] -= presencePenalty;
  return edits;
}

const EDITS: Record<string, GenerateOptions> = {
  "repetition penalty": { repetitionPenalty: 1.4 },
  "repetition penalty below 1": { repetitionPenalty: 0.8 },
  "frequency penalty": { frequencyPenalty: 1.1 },
  "presence penalty": { presencePenalty: 1.6 },
  "logit bias": { logitBias: { 263: 2.5, 314: -4, 280: -1.5 } },
  "all of them": {
    repetitionPenalty: 1.2,
    frequencyPenalty: 0.5,
    presencePenalty: -0.4,
    logitBias: { 263: 1, 14: -2 },
  },
};

for (const [name, options] of Object.entries(EDITS)) {
  Deno.test(`generate() with ${name} takes what an oracle takes, token by token`, async () => {
    const settings = { ...options, temperature: 0, ignoreEos: true, maxTokens: 32 };
    const { ids } = await generate(model, prompt, settings).record;
    const { logits } = await forward(model, [...prompt, ...ids.slice(0, -1)]);
    ids.forEach((id, i) => {
      const row = rowOf(logits, prompt.length - 1 + i, vocabularySize);
      const { index, margin } = largest(edited(row, prompt, ids.slice(0, i), options));
      if (margin > 1e-3) assertEquals(id, index, `token ${i}, margin ${margin}`);
    });
    const plain = await generate(model, prompt, { temperature: 0, ignoreEos: true, maxTokens: 32 }).record;
    assertNotEquals(ids, plain.ids);
  });
}

Deno.test("generate() with a penalty in a batch counts each sequence by itself", async () => {
  const options = {
    ...EDITS["all of them"],
    temperature: 0,
    ignoreEos: true,
    maxTokens: 12,
    batchInvariant: true,
  };
  const prompts = [prompt, prompt.slice(3), prompt.slice(5, 7)];
  const together = await generate(model, prompts, options).record;
  for (const [i, { ids }] of together.entries()) {
    assertEquals(ids, (await generate(model, prompts[i], options).record).ids);
  }
});

Deno.test("generate() with a large logit bias forces a token, with -Infinity forbids it", async () => {
  const options = { temperature: 0.8, seed: 1, maxTokens: 6, ignoreEos: true };
  const forced = await generate(model, prompt, { ...options, logitBias: { 1234: 1e6 } }).record;
  assertEquals(forced.ids, new Array(6).fill(1234));
  const greedy = await generate(model, prompt, { ...options, temperature: 0 }).record;
  const banned = Object.fromEntries(greedy.ids.map((id) => [id, -Infinity]));
  const others = await generate(model, prompt, { ...options, temperature: 0, logitBias: banned }).record;
  assert(others.ids.every((id) => !greedy.ids.includes(id)), `${others.ids}`);
});

Deno.test("generate() gives logprobs of the model's own distribution, whatever the sampling", async () => {
  const options = {
    ...EDITS["all of them"],
    temperature: 1.7,
    topK: 40,
    seed: 6,
    maxTokens: 10,
    logprobs: 3,
    ignoreEos: true,
  };
  const { ids, logprobs } = await generate(model, prompt, options).record;
  const { logits } = await forward(model, [...prompt, ...ids]);
  logprobs!.forEach(({ id, logprob, top }, i) => {
    assertEquals(id, ids[i]);
    const expected = logSoftmax(rowOf(logits, prompt.length - 1 + i, vocabularySize));
    assertLess(Math.abs(logprob - expected[id]), 1e-4);
    for (const entry of top) assertLess(Math.abs(entry.logprob - expected[entry.id]), 1e-4);
  });
});

Deno.test("generate() gives the same text for the same seed and another for another", async () => {
  const text = async (seed?: number) =>
    await generate(model, prompt, {
      temperature: 1,
      maxTokens: 12,
      ignoreEos: true,
      ...(seed === undefined ? {} : { seed }),
    }).record;
  const seeds = [0, 1, 2, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER];
  const texts = [];
  for (const seed of seeds) {
    const first = await text(seed);
    assertEquals(first.seed, seed);
    assertEquals((await text(seed)).ids, first.ids);
    texts.push(first.text);
  }
  assertEquals(new Set(texts).size, seeds.length);
  // One that is drawn is told, and gives the same text again.
  const [drawn, other] = [await text(), await text()];
  assertNotEquals(drawn.seed, other.seed);
  assertEquals((await text(drawn.seed)).ids, drawn.ids);
});

Deno.test("generate() keeps to what top-k, top-p and min-p leave", async () => {
  const options = { temperature: 1.5, maxTokens: 24, seed: 3, ignoreEos: true };
  // Of each token: its rank, the shares before it, and its own beside the best one's, at this temperature.
  const run = async (limits: GenerateOptions) => {
    const { ids } = await generate(model, prompt, { ...options, ...limits }).record;
    const { logits } = await forward(model, [...prompt, ...ids]);
    return ids.map((id, i) => {
      const row = rowOf(logits, prompt.length - 1 + i, vocabularySize).map((logit) => logit / 1.5);
      const shares = [...logSoftmax(row)].map((value, token) => ({ token, share: Math.exp(value) }))
        .sort((a, b) => b.share - a.share);
      const rank = shares.findIndex(({ token }) => token === id);
      const before = shares.slice(0, rank).reduce((sum, { share }) => sum + share, 0);
      return { rank, before, ratio: shares[rank].share / shares[0].share };
    });
  };
  const free = await run({});
  assertGreater(Math.max(...free.map(({ rank }) => rank)), 20);
  assertGreater(Math.max(...free.map(({ before }) => before)), 0.6);
  assertLess(Math.min(...free.map(({ ratio }) => ratio)), 0.1);
  const topK = (await run({ topK: 4 })).map(({ rank }) => rank);
  assert(topK.every((rank) => rank < 4) && Math.max(...topK) > 0, `${topK}`);
  const topP = (await run({ topP: 0.5 })).map(({ before }) => before);
  assert(topP.every((before) => before < 0.5 + 1e-4) && Math.max(...topP) > 0, `${topP}`);
  const minP = (await run({ minP: 0.2 })).map(({ ratio }) => ratio);
  assert(minP.every((ratio) => ratio >= 0.2 - 1e-4) && Math.min(...minP) < 1, `${minP}`);
});

Deno.test("generate() is greedy whenever one token is all that is left", async () => {
  const options = { maxTokens: 16, ignoreEos: true, seed: 8 };
  const greedy = await generate(model, prompt, { ...options, temperature: 0 }).record;
  for (const limits of [{ topK: 1 }, { topP: 0 }, { minP: 1 }]) {
    const { ids } = await generate(model, prompt, { ...options, temperature: 1.2, ...limits }).record;
    assertEquals(ids, greedy.ids);
  }
});

Deno.test("generate() takes what is not given from the model's generation_config.json", async () => {
  assertEquals([model.defaults.temperature, model.defaults.topP], [0.8, 0.95]);
  const options = { maxTokens: 12, seed: 4 };
  const byDefault = await generate(model, prompt, options).record;
  const spelled = await generate(model, prompt, {
    ...options,
    temperature: 0.8,
    topP: 0.95,
    topK: 0,
    minP: 0,
  })
    .record;
  assertEquals(byDefault.ids, spelled.ids);
  const greedy = await generate(model, prompt, { ...options, temperature: 0 }).record;
  assertNotEquals(byDefault.ids, greedy.ids);
});
