// Options and prompts out of range: each is refused before anything runs, with a sentence that gives value and limit.

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { generate, type GenerateOptions, type Prompt, session } from "../../lib/generate/mod.ts";
import { loadModel } from "../../lib/models/mod.ts";
import type { Gpu } from "../../lib/gpu/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { assertAgree, NOVEL_LLAMA, novelLlama } from "../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";

const gpu = await sharedGpu();
const model = await novelLlama("f32");
const { vocabularySize, contextLength } = model.config;
/** Without a tokenizer. */
const bare = await loadRandomLlama(gpu, randomLlama());

const OUT_OF_RANGE: [GenerateOptions, string][] = [
  [{ maxTokens: 0 }, "maxTokens must be a whole number from 1 to 2147483648: current value is 0"],
  [{ maxTokens: -1 }, "maxTokens must be"],
  [{ maxTokens: 1.5 }, "maxTokens must be a whole number"],
  [{ maxTokens: NaN }, "current value is NaN"],
  [{ maxTokens: Infinity }, "maxTokens must be"],
  [{ maxTokens: "8" as unknown as number }, "maxTokens must be"],
  [{ temperature: -0.1 }, "temperature must be from 0 to 1000: current value is -0.1"],
  [{ temperature: 1001 }, "temperature must be"],
  [{ temperature: NaN }, "temperature must be"],
  [{ topP: -0.01 }, "topP must be from 0 to 1"],
  [{ topP: 1.01 }, "topP must be from 0 to 1: current value is 1.01"],
  [{ topP: NaN }, "topP must be"],
  [{ topK: -1 }, "topK must be a whole number from 0"],
  [{ topK: 2.5 }, "topK must be a whole number"],
  [{ minP: 1.5 }, "minP must be from 0 to 1"],
  [{ minP: -1 }, "minP must be from 0 to 1"],
  [{ repetitionPenalty: 0 }, "repetitionPenalty must be from 0.001 to 1000: current value is 0"],
  [{ repetitionPenalty: -1 }, "repetitionPenalty must be"],
  [{ repetitionPenalty: Infinity }, "repetitionPenalty must be"],
  [{ frequencyPenalty: NaN }, "frequencyPenalty must be from -1000000 to 1000000"],
  [{ frequencyPenalty: 1e7 }, "frequencyPenalty must be"],
  [{ presencePenalty: -Infinity }, "presencePenalty must be"],
  [{ logitBias: { [vocabularySize]: 1 } }, `logitBias id ${vocabularySize} must be`],
  [{ logitBias: { [-1]: 1 } }, "logitBias id -1 must be"],
  [{ logitBias: { a: 1 } as Record<number, number> }, "logitBias id a must be"],
  [{ logitBias: { 3: NaN } }, "logitBias of token 3 must be"],
  [{ logitBias: { 3: Infinity } }, "logitBias of token 3 must be"],
  [{ logitBias: { 3: 1e7 } }, "logitBias of token 3 must be from -1000000 to 1000000"],
  [{ seed: -1 }, "seed must be a whole number from 0 to 9007199254740991"],
  [{ seed: 0.5 }, "seed must be a whole number"],
  [{ seed: 2 ** 53 }, "seed must be"],
  [{ logprobs: -1 }, "logprobs must be a whole number from 0 to 64"],
  [{ logprobs: 65 }, "logprobs must be a whole number from 0 to 64: current value is 65"],
  [{ stop: "" }, "stop must be strings of at least one character"],
  [{ stop: ["a", ""] }, "stop must be strings"],
  [{ stop: [5 as unknown as string] }, "stop must be strings"],
  [{ stopIds: [-1] }, "stopIds must be a whole number"],
  [{ stopIds: [1.5] }, "stopIds must be a whole number"],
  [{ stopIds: Array.from({ length: 65 }, (_, i) => i) }, "At most 64 stop ids are supported: 65 were given"],
  [{ runAhead: 0 }, "runAhead must be a whole number from 1 to 64"],
  [{ runAhead: 65 }, "runAhead must be a whole number from 1 to 64: current value is 65"],
];

Deno.test("generate() refuses every option that is out of its range, before anything runs", () => {
  const before = gpu.memory.holders();
  using turns = session(model);
  for (const [options, message] of OUT_OF_RANGE) {
    assertThrows(() => generate(model, "x", options), RangeError, message);
    assertThrows(() => turns.generate("x", options), RangeError, message);
  }
  assertEquals(turns.ids, []);
  assertEquals(gpu.memory.holders(), before);
});

Deno.test("generate() takes every option at the ends of its range", async () => {
  const ends: GenerateOptions[] = [
    {
      temperature: 1000,
      topP: 1,
      topK: 2 ** 31,
      minP: 1,
      seed: Number.MAX_SAFE_INTEGER,
      logprobs: 64,
      runAhead: 64,
    },
    { temperature: 1e-30, topP: 0, topK: 1, minP: 0, seed: 0, logprobs: 0, runAhead: 1 },
    { temperature: 1, repetitionPenalty: 1e-3, frequencyPenalty: 1e6, presencePenalty: -1e6 },
    { temperature: 1, repetitionPenalty: 1e3, frequencyPenalty: -1e6, presencePenalty: 1e6 },
    { temperature: 1, logitBias: { 0: -Infinity, 63: 1e6 }, stopIds: [], stop: [] },
  ];
  for (const options of ends) {
    const { ids, logprobs } = await generate(bare, [1, 2, 3], { ...options, maxTokens: 4 }).record;
    assertEquals(ids.length, 4);
    assertEquals(logprobs?.[0].top.length, options.logprobs);
  }
});

Deno.test("generate() refuses prompts that cannot be run", () => {
  const refused: [Prompt, GenerateOptions, string][] = [
    [[], {}, "The prompt is empty: give at least one token"],
    ["", {}, "The prompt is empty"],
    [
      [0, vocabularySize],
      {},
      `Token id ${vocabularySize} at index 1 is out of range: the vocabulary has 4096 ids`,
    ],
    [[-1], {}, "Token id -1 at index 0"],
    [[1.5], {}, "Token id 1.5 at index 0"],
    [[NaN], {}, "Token id NaN at index 0"],
    [
      randomIds(contextLength, vocabularySize),
      {},
      `The prompt has ${contextLength} tokens and the model's context ${contextLength}: at least one must be left`,
    ],
    [
      randomIds(contextLength - 4, vocabularySize),
      { maxTokens: 5 },
      `tokens and maxTokens 5 are over the model's context of ${contextLength}: at most 4 are left`,
    ],
  ];
  for (const [prompt, options, message] of refused) {
    assertThrows(() => generate(model, prompt, options), RangeError, message);
  }
  for (const prompt of [undefined, null, 5, {}]) {
    assertThrows(() => generate(model, prompt as unknown as Prompt), TypeError, "A prompt must be a text");
  }
});

Deno.test("generate() of a text without what it needs says what to do", () => {
  const chat = [{ role: "user", content: "Hello" }] as const;
  assertThrows(() => generate(model, chat), Error, "no chat template: pass one");
  assertThrows(() => generate(bare, "Hello"), Error, "has no tokenizer.json: give the prompt as token ids");
  assertThrows(() => generate(bare, chat), Error, "has no tokenizer.json: give the prompt as token ids");
  assertThrows(() => generate(bare, [1], { stop: "x" }), RangeError, "this model has none: use stopIds");
});

Deno.test("generate() runs a model without a tokenizer on token ids", async () => {
  assertEquals(bare.tokenizer, undefined);
  const run = generate(bare, [1, 2], { maxTokens: 5 });
  const pieces = await Array.fromAsync(run);
  const { ids, text } = await run.record;
  assertEquals([ids.length, text, pieces.flatMap((piece) => piece.ids)], [5, "", ids]);
});

/** The same device with another binding limit. */
function withBindings(maxStorageBufferBindingSize: number): Gpu {
  const limits = new Proxy(gpu.limits, {
    get: (target, name) =>
      name === "maxStorageBufferBindingSize"
        ? maxStorageBufferBindingSize
        : Reflect.get(target, name, target),
  });
  return { ...gpu, limits };
}

Deno.test("generate() of a model over the binding limit, which is split, gives the same", async () => {
  // The table of 2 MiB comes in several buffers.
  using split = await loadModel(withBindings(530_000), NOVEL_LLAMA, { dtype: "f32" });
  const prompt = randomIds(6, vocabularySize);
  const options = { temperature: 0, maxTokens: 8, logprobs: 2, ignoreEos: true };
  assertAgree(await generate(split, prompt, options).record, await generate(model, prompt, options).record);
  assertEquals(split.store!.bytes, model.store!.bytes);

  const held = gpu.memory.holders();
  const many = new Array(40).fill(prompt);
  for (
    const call of [
      () => generate(split, many, options),
      () => generate(split, many.slice(8), { ...options, logprobs: 64 }),
    ]
  ) {
    // Refused by name, not by the driver.
    await assertRejects(() => call().record, RangeError, "over this device's binding limit of 517.6 KiB");
    assertEquals(gpu.memory.holders(), held);
  }
});
