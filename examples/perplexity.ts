// How likely a model finds a text: perplexity with sliding windows, and which words surprise it.
//
//   deno run -A examples/perplexity.ts

import { loadModel, openGpu, score } from "../mod.ts";

const text = "The old man shut the door and sat down by the fire. He had a telescope in his pocket.";

using gpu = await openGpu();
using model = await loadModel(gpu, "examples/models/novel-llama");
const result = await score(model, text);
console.log(`${result.tokens} tokens, perplexity ${result.perplexity.toFixed(1)}`);
const ids = model.tokenizer!.encode(text).slice(1);
for (const [i, id] of ids.entries()) {
  const nll = result.nll[i];
  console.log(
    `${nll.toFixed(2).padStart(6)} ${"#".repeat(Math.round(nll * 2))} ${model.tokenizer!.decode([id])}`,
  );
}
