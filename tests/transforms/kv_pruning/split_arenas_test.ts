// Pruning on a device whose binding limit is small, so that a layer's keys and values stand in several arenas, those that
// are staged in more of them than those that are kept: no bit changes.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { createEngine } from "../../../lib/generate/engine.ts";
import { generateSpec } from "../../../lib/generate/generate.ts";
import { generate, session } from "../../../lib/generate/mod.ts";
import { resolveOptions } from "../../../lib/generate/options.ts";
import { gpuOf } from "../../../lib/generate/gpu_of.ts";
import type { Model } from "../../../lib/models/mod.ts";
import {
  adaKv,
  composePolicies,
  h2o,
  type KvPolicy,
  pyramidInfer,
  snapKv,
  withKvPruning,
} from "../../../lib/transforms/mod.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { essence } from "../../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../../harness/random_llama.ts";
import { limitGpu } from "../../harness/replace_members.ts";

/** Bytes of a binding: of the four heads it holds one that is kept, with the slots that sessions hold back, or two staged. */
const BINDING = 21_000;
/** Tokens fed in a turn, and most new ones of the first and the second. */
const PROMPT = 30;
const NEW_TOKENS = [180, 40] as const;
const OPTIONS = { temperature: 0, logprobs: 3, ignoreEos: true, traceKept: true } as const;

const made = randomLlama({
  hidden_size: 40,
  intermediate_size: 56,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 8,
  vocab_size: 123,
  max_position_embeddings: 512,
  tie_word_embeddings: true,
}, 5);
const gpu = await sharedGpu();
const whole = await loadRandomLlama(gpu, made);
const split = await loadRandomLlama(limitGpu(gpu, { maxStorageBufferBindingSize: BINDING }), made);

/** Arenas of the first layer's keys in the second turn. */
async function arenasOf(model: Model): Promise<number> {
  const turn = {
    tokens: PROMPT,
    maxTokens: NEW_TOKENS[1],
    position: 209,
    past: [150, 150],
    used: [150, 150],
  };
  const spec = generateSpec(model, [turn], resolveOptions(model, OPTIONS), true);
  const engine = await createEngine(gpuOf(model), spec);
  try {
    return [...engine.cache.resources.keys()].filter((name) => name.startsWith("kv.0.keys.")).length;
  } finally {
    engine.release();
  }
}

const POLICIES: readonly { readonly name: string; readonly policy: KvPolicy }[] = [
  { name: "pyramidInfer()", policy: pyramidInfer({ minContext: 4, prefillDecay: 0.3, genCompress: 0.5 }) },
  { name: "pyramidInfer() of each KV head", policy: pyramidInfer({ keep: 0.6, perKvHead: true }) },
  {
    name: "the paper's pyramidInfer()",
    policy: pyramidInfer({ algorithm: "paper", keep: 0.6, p: 0.95, pDecay: 1, minimum: 90 }),
  },
  {
    name: "snapKv(), then h2o()",
    policy: composePolicies(snapKv({ keep: 0.6, window: 4 }), h2o({ recent: 5 })),
  },
];

for (const { name, policy } of POLICIES) {
  Deno.test(`${name} gives the same bits with several arenas a layer, in two turns`, async () => {
    const prune = withKvPruning(policy);
    assertEquals(await arenasOf(prune(whole)), 1);
    assertEquals(await arenasOf(prune(split)), 4);
    using want = session(prune(whole));
    using got = session(prune(split));
    for (const [i, maxTokens] of NEW_TOKENS.entries()) {
      const ids = randomIds(PROMPT, 123, 4 + i);
      const [a, b] = await Promise.all(
        [want, got].map((chat) => chat.generate(ids, { ...OPTIONS, maxTokens }).record),
      );
      assertEquals(essence(b), essence(a), `turn ${i}`);
      assertEquals([b.kept, b.cacheTokens], [a.kept, a.cacheTokens], `turn ${i}`);
      assert(b.cacheTokens.at(-1)! < PROMPT + maxTokens - 1 + 209 * i);
    }
  });
}

Deno.test("adaKv(), whose heads share a layer's slots, refuses several arenas a layer and says why", async () => {
  const model = withKvPruning(adaKv({ keep: 0.95, window: 4 }))(split);
  await assertRejects(
    () => generate(model, randomIds(PROMPT, 123, 4), { ...OPTIONS, maxTokens: NEW_TOKENS[0] }).record,
    RangeError,
    "Heads of different lengths need all of a layer's keys in one binding",
  );
});
