// A policy of your own: which tokens of a prompt are kept, by a score that you choose, in about 20 lines.
//
//   deno run -A examples/own_policy.ts

import { generate, loadModel, openGpu } from "../mod.ts";
import { type KvPolicy, slotSchedule, windowAttention, withKvPruning } from "../lib/transforms/mod.ts";

/** Keeps what the last 16 rows attend to, newer rows counting up to three times as much; the first two layers keep all. */
function lastWords(keep: number): KvPolicy {
  const [name, window] = ["last-words", 16];
  return {
    name,
    options: { keep },
    // What each layer does with a prompt: scores keys [kvHeads][rows], and stores the best of each KV head alone.
    rules: ({ layers }) =>
      Array.from({ length: layers }, (_, layer) =>
        layer < 2 ? {} : {
          prefill: { score: windowAttention(3), dropsRows: false, cutsSlots: true, perKvHead: true },
        }),
    // How much, from lengths alone, so that memory is planned before anything runs. `deal` gives the slots to the layers.
    schedule: (shape, turn, evicts) =>
      slotSchedule(shape, turn, {
        policy: name,
        budget: { keep },
        window,
        evicts,
        deal: (slots, most) => {
          const rest = slots - most[0] - most[1];
          return most.map((all, layer) => layer < 2 ? all : Math.floor(rest / (most.length - 2)));
        },
      }),
  };
}

using gpu = await openGpu();
using model = await loadModel(gpu, "examples/models/novel-llama");
const prompt = "The rain had not stopped for three days, and the road to the village was under water. "
  .repeat(12);
for (const one of [model, withKvPruning(lastWords(0.6))(model)]) {
  const { text, bytes, cacheTokens } = await generate(one, prompt, { maxTokens: 24, temperature: 0 }).record;
  console.log(`${one.pruning?.policy ?? "full"}: ${text.trim().replaceAll("\n", " ")}`);
  console.log(`  tokens kept by layer ${cacheTokens.join(" ")}, ${bytes.cache} bytes\n`);
}
