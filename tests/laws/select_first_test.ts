// Selecting first, then computing queries, values and all that follows for the rows that are left, gives the bits that
// computing everything and dropping rows last gives.

import { assert, assertEquals, assertLess } from "@std/assert";
import { generate } from "../../lib/generate/mod.ts";
import type { Value } from "../../lib/graph/mod.ts";
import { type Core, mapCores, ops } from "../../lib/layers/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import { type KvPolicy, pyramidInfer, withKvPruning } from "../../lib/transforms/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { essence } from "../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";

/** Calls of the attention over all rows, by prefill plans. */
let computedInFull = 0;

/** The core with attention of all rows of a prompt, of which those that it would have left are picked in the end. */
function selectLast(core: Core): Core {
  return {
    ...core,
    apply(trace, input): Value {
      const { rows, shape } = input;
      const first = core.apply(trace, input);
      if (trace.target.phase === "decode" || first.rows === rows.rows) return first;
      computedInFull++;
      const store = ops.cacheStore(trace.caches.at(-1)!);
      // Keys and values are stored already, and queries rotated.
      const { outputs: [q] } = trace.operations.findLast(({ definition }) =>
        definition.kind === "storeKeyValues"
      )!;
      const all = ops.softmaxAttention(trace, q, store, 1 / Math.sqrt(shape.headSize));
      return ops.alignRows(trace, all, first.rows);
    },
  };
}

const POLICIES: readonly { readonly name: string; readonly policy: KvPolicy }[] = [
  { name: "pyramidInfer()", policy: pyramidInfer({ minContext: 8, prefillDecay: 0.5 }) },
  {
    name: "pyramidInfer() with an interval",
    policy: pyramidInfer({ minContext: 0, prefillDecay: 0.3, interval: 2, rowCap: 7 }),
  },
];

const made = randomLlama({
  hidden_size: 36,
  intermediate_size: 52,
  num_hidden_layers: 4,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 12,
  vocab_size: 97,
  max_position_embeddings: 512,
  tie_word_embeddings: false,
}, 4);
const whole = await loadRandomLlama(await sharedGpu(), made);

for (const { name, policy } of POLICIES) {
  Deno.test(`${name} selects first as it would select last, to the bit`, async () => {
    const first: Model = withKvPruning(policy)(whole);
    const last = mapCores(first, ({ core }) => selectLast(core));
    const prompts = [150, 33, 1].map((length) => randomIds(length, 97, length));
    const options = { temperature: 0, logprobs: 3, ignoreEos: true, maxTokens: 30, traceKept: true };
    computedInFull = 0;
    const want = await generate(last, prompts, options).record;
    assert(computedInFull > 0);
    const got = await generate(first, prompts, options).record;
    got.forEach((record, i) => {
      assertEquals(essence(record), essence(want[i]), `prompt ${i}`);
      assertEquals([record.kept, record.cacheTokens], [want[i].kept, want[i].cacheTokens], `prompt ${i}`);
    });
    assertLess(got[0].kept![3][0].length, 150);
  });
}
