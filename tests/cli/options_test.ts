import { assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import type { Values } from "../../lib/cli/flags.ts";
import { generateOptions } from "../../lib/cli/options.ts";
import { WrongCall } from "../../lib/cli/errors.ts";
import { describeModel } from "../../mod.ts";
import { MODEL, ROOT } from "./fake_io.ts";
import { modelCopy } from "./model_copy.ts";

Deno.test("generateOptions() gives each flag to the option of its name", async () => {
  using model = await describeModel(join(ROOT, MODEL));
  const values: Values = {
    "max-tokens": 1,
    "temperature": 2,
    "top-k": 3,
    "top-p": 0.4,
    "min-p": 0.5,
    "repetition-penalty": 6,
    "frequency-penalty": 7,
    "presence-penalty": 8,
    "logit-bias": { 9: 10 },
    "seed": 11,
    "stop": ["12"],
    "ignore-eos": true,
    "logprobs": 13,
    "batch-invariant": true,
  };
  assertEquals(generateOptions(values, model), {
    maxTokens: 1,
    temperature: 2,
    topK: 3,
    topP: 0.4,
    minP: 0.5,
    repetitionPenalty: 6,
    frequencyPenalty: 7,
    presencePenalty: 8,
    logitBias: { 9: 10 },
    seed: 11,
    stop: ["12"],
    ignoreEos: true,
    logprobs: 13,
    batchInvariant: true,
  });
});

Deno.test("generateOptions() leaves to the model what was not given", async () => {
  using model = await describeModel(join(ROOT, MODEL));
  assertEquals(Object.values(generateOptions({}, model)).filter((value) => value !== undefined), []);
});

Deno.test("generateOptions() refuses a stop string where there is no tokenizer", async () => {
  await using copy = await modelCopy({ without: ["tokenizer.json"] });
  using model = await describeModel(copy.directory);
  assertThrows(() => generateOptions({ stop: ["a"] }, model), WrongCall, "--stop needs a tokenizer");
});
