// The shortest useful script: load a model, continue a text, print it as it comes.
//
//   deno run -A examples/first_script.ts

import { generate, loadModel, openGpu } from "../mod.ts";

using gpu = await openGpu();
using model = await loadModel(gpu, "examples/models/novel-llama");
const run = generate(model, "The rain had not stopped for", { maxTokens: 60, seed: 7 });
for await (const piece of run) await Deno.stdout.write(piece.bytes);
console.error("\n", await run.record);
