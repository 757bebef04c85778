// Several prompts of different lengths in one packed run: each gets what it gets alone.
//
//   deno run -A examples/batch.ts

import { generate, loadModel, openGpu } from "../mod.ts";

using gpu = await openGpu();
using model = await loadModel(gpu, "examples/models/novel-llama");
const prompts = [
  "It was a cold morning, and",
  '"I never"',
  "The captain looked at his watch, and then at the sea, and",
];
const records = await generate(model, prompts, { maxTokens: 24, temperature: 0 }).record;
records.forEach((record, i) => console.log(`${prompts[i]}…${record.text}\n`));
console.error(`${records[0].timing.decodeTokensPerSecond.toFixed(0)} tokens/s together`);
