// Laws of KV-cache pruning, held by every policy in the list: they are about any policy, and know no algorithm.

import {
  assert,
  assertEquals,
  assertLess,
  assertLessOrEqual,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import { generate, type GenerateOptions, planRun, session } from "../../lib/generate/mod.ts";
import { deviceTraits } from "../../lib/generate/plans.ts";
import { GpuMemoryError, openGpu } from "../../lib/gpu/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import type { KvPolicy } from "../../lib/transforms/kv_pruning/policy.ts";
import {
  composePolicies,
  h2o,
  pyramidInfer,
  snapKv,
  streamingLlm,
  tova,
  withKvPruning,
} from "../../lib/transforms/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { assertAgree, essence, novelLlama } from "../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";
import { type Kept, tracedRun } from "../harness/traced_run.ts";

const gpu = await sharedGpu();
const GREEDY: GenerateOptions = { temperature: 0, logprobs: 2, ignoreEos: true };
const VOCABULARY = 97;
const MADE = randomLlama({
  hidden_size: 36,
  intermediate_size: 52,
  num_hidden_layers: 4,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 12,
  vocab_size: VOCABULARY,
  max_position_embeddings: 1024,
  tie_word_embeddings: false,
}, 4);
const SHAPE = { layers: 4, heads: 6, kvHeads: 2 };

/** A policy that the laws are held against. */
interface LawfulPolicy {
  readonly name: string;
  readonly policy: KvPolicy;
  /** First tokens that must be there in the end. */
  readonly sinks: number;
  /** Run-aheads that are compared with 1. Default: 64. */
  readonly runAheads?: readonly number[];
}

const POLICIES: readonly LawfulPolicy[] = [
  {
    name: "pyramidInfer()",
    policy: pyramidInfer({ minContext: 8, prefillDecay: 0.5 }),
    sinks: 4,
  },
  {
    name: "pyramidInfer() of each KV head and layer by itself",
    policy: pyramidInfer({ minContext: 8, prefillDecay: 0.4, sameLayer: true, perKvHead: true, interval: 2 }),
    sinks: 4,
  },
  {
    name: "pyramidInfer() with keep",
    policy: pyramidInfer({ keep: 0.4, sinks: 6 }),
    sinks: 6,
    runAheads: [8, 64],
  },
  {
    name: "pyramidInfer() of each KV head with cacheTokens",
    policy: pyramidInfer({ cacheTokens: 40, perKvHead: true, rowCap: 5 }),
    sinks: 4,
  },
  {
    name: 'pyramidInfer({ algorithm: "paper" })',
    policy: pyramidInfer({ algorithm: "paper", p: 0.9, pDecay: 0.9, minimum: 24 }),
    sinks: 4,
  },
  { name: "h2o() with keep", policy: h2o({ keep: 0.5, recent: 6 }), sinks: 0 },
  { name: "streamingLlm() with keep", policy: streamingLlm({ keep: 0.5 }), sinks: 4 },
  {
    name: "composePolicies() of snapKv() and tova()",
    policy: composePolicies(snapKv({ keep: 0.5, window: 4 }), tova()),
    sinks: 0,
  },
];

/** Policies that are told to keep everything. */
const WHOLE: readonly LawfulPolicy[] = [
  { name: "pyramidInfer({ keep: 1 })", policy: pyramidInfer({ keep: 1 }), sinks: 4 },
  {
    name: "pyramidInfer({ keep: 1 }) of each KV head",
    policy: pyramidInfer({ keep: 1, perKvHead: true, sameLayer: true, minContext: 0 }),
    sinks: 4,
  },
  {
    name: 'pyramidInfer({ algorithm: "paper", p: 1, pDecay: 1 })',
    policy: pyramidInfer({ algorithm: "paper", p: 1, pDecay: 1 }),
    sinks: 4,
  },
];

/** A model that holds the law, pruned; both share weights. */
async function pruned<T>(
  { policy }: LawfulPolicy,
  work: (model: Model, whole: Model) => Promise<T>,
): Promise<T> {
  using whole = await loadRandomLlama(gpu, MADE);
  return await work(withKvPruning(policy)(whole), whole);
}

for (const law of WHOLE) {
  Deno.test(`${law.name} gives the bits of the unpruned model`, async () => {
    await pruned(law, async (model, whole) => {
      const prompts = [randomIds(130, VOCABULARY, 1), randomIds(5, VOCABULARY, 2), [7]];
      for (const prompt of prompts) {
        const options = { ...GREEDY, maxTokens: 60 };
        const want = await generate(whole, prompt, options).record;
        const got = await generate(model, prompt, options).record;
        assertEquals(essence(got), essence(want), `${prompt.length} tokens`);
        assertEquals(got.cacheTokens, want.cacheTokens);
      }
      using turns = session(model);
      using dense = session(whole);
      for (const [i, prompt] of prompts.entries()) {
        const options = { ...GREEDY, maxTokens: 20 };
        const want = await dense.generate(prompt, options).record;
        assertEquals(essence(await turns.generate(prompt, options).record), essence(want), `turn ${i}`);
      }
    });
  });
}

for (const law of POLICIES) {
  Deno.test(`${law.name} prunes`, async () => {
    await pruned(law, async (model, whole) => {
      const ids = randomIds(130, VOCABULARY, 1);
      const options = { ...GREEDY, maxTokens: 40, traceKept: true };
      const got = await generate(model, ids, options).record;
      const full = await generate(whole, ids, options).record;
      assertNotEquals(got.logprobs, full.logprobs);
      assertLess(got.kept![3][0].length, 130);
      assertEquals(got.cacheTokens.map((count, i) => count <= full.cacheTokens[i]), [true, true, true, true]);
    });
  });

  Deno.test(`${law.name} gives each prompt of a batch what it gets alone, whatever its neighbours`, async () => {
    await pruned(law, async (model) => {
      const options = { ...GREEDY, maxTokens: 45, batchInvariant: true, traceKept: true };
      const prompts = [150, 60, 45, 101].map((length) => randomIds(length, VOCABULARY, length));
      const batch = await generate(model, prompts, options).record;
      const other = prompts.with(1, randomIds(77, VOCABULARY, 3));
      const changed = await generate(model, other, options).record;
      for (const [i, prompt] of prompts.entries()) {
        const alone = await generate(model, prompt, options).record;
        assertEquals(essence(batch[i]), essence(alone), `prompt ${i}`);
        assertEquals([batch[i].kept, batch[i].cacheTokens], [alone.kept, alone.cacheTokens], `prompt ${i}`);
        if (i !== 1) assertEquals(essence(changed[i]), essence(batch[i]), `prompt ${i} beside another`);
      }
    });
  });

  Deno.test(`${law.name} never takes back what it dropped, and keeps sinks and window over 500 steps`, async () => {
    await pruned(law, async (model) => {
      const ids = randomIds(120, VOCABULARY, 5);
      const maxTokens = 501;
      const [{ history }] = await tracedRun(model, [ids], { maxTokens, steps: 50 });
      const { windows } = law.policy.schedule(SHAPE, { tokens: ids.length, maxTokens, position: 0 });
      history.forEach((kept, i) => {
        const fed = i * 50;
        const length = ids.length + fed;
        const window = (windows?.[fed] ?? 1) & 0x7fffffff;
        kept.flat().forEach((own) => {
          assertEquals(own.slice(0, law.sinks), [...Array(law.sinks).keys()], `sinks after ${fed} rows`);
          const newest = Array.from({ length: window }, (_, j) => length - window + j);
          assertEquals(own.slice(-window), newest, `window after ${fed} rows`);
        });
        if (i > 0) assertNested(kept, history[i - 1], length - 50);
      });
      assertLess(history.at(-1)![3][0].length, 620);
    });
  });

  Deno.test(`${law.name} takes prompts of 1 to 8 tokens`, async () => {
    // A budget that sinks and window are over is refused: those have more tokens to share.
    const maxTokens = law.policy.options.keep || law.policy.options.cacheTokens ? 60 : 40;
    await pruned(law, async (model) => {
      for (let length = 1; length <= 8; length++) {
        const ids = randomIds(length, VOCABULARY, length);
        const record = await generate(model, ids, { ...GREEDY, maxTokens, runAhead: 64 }).record;
        assertEquals(record.ids.length, maxTokens);
        assert(record.logprobs!.every(({ logprob }) => Number.isFinite(logprob)));
      }
    });
  });

  Deno.test(`${law.name} holds the bytes that it reports, and planRun() says them before`, async () => {
    await pruned(law, async (model) => {
      for (const [promptTokens, maxTokens, sequences] of [[140, 60, 1], [90, 41, 3]]) {
        const prompts = Array.from({ length: sequences }, (_, i) => randomIds(promptTokens, VOCABULARY, i));
        let held: Record<string, number> = {};
        const run = generate(model, prompts, { ...GREEDY, maxTokens, runAhead: 4 });
        for await (const _ of run) if (!held.cache) held = gpu.memory.holders();
        const [{ bytes }] = await run.record;
        assertEquals(held.cache, bytes.cache);
        const plan = planRun(model, { promptTokens, maxTokens, sequences, device: deviceTraits(gpu) });
        assertEquals(plan.bytes.cache, bytes.cache);
        assertEquals(plan.layers.reduce((sum, { cacheBytes }) => sum + cacheBytes, 0), bytes.cache);
      }
    });
  });

  Deno.test(`${law.name} has the same bits whatever the run-ahead, also in a turn after a stop inside a submit`, async () => {
    const model = withKvPruning(law.policy)(await novelLlama("f32"));
    const first = { ...GREEDY, maxTokens: 48 };
    const prompt = randomIds(40, 4096, 6);
    const free = await generate(model, prompt, { ...first, runAhead: 1 }).record;
    // In the middle of a submit, after a block was compressed.
    const stop = model.tokenizer!.decode(free.ids.slice(33, 38));
    const turnsOf = async (runAhead: number) => {
      using turns = session(model);
      const ended = await turns.generate(prompt, { ...first, stop, runAhead }).record;
      const options = { ...GREEDY, maxTokens: 24, traceKept: true, runAhead };
      const next = await turns.generate(randomIds(20, 4096, 7), options).record;
      return [essence(ended), essence(next), next.kept, next.cacheTokens];
    };
    const want = await turnsOf(1);
    const { length } = (want[0] as { ids: number[] }).ids;
    assert(length > 20 && length < 40, `stopped after ${length}`);
    for (const runAhead of law.runAheads ?? [64]) {
      assertEquals(await turnsOf(runAhead), want, `run-ahead ${runAhead}`);
    }
  });
}

/** Asserts that nothing is kept now that was not kept before or came later. */
function assertNested(now: Kept, before: Kept, length: number): void {
  now.forEach((heads, layer) =>
    heads.forEach((own, head) => {
      const known = new Set(before[layer][head]);
      const back = own.filter((position) => position < length && !known.has(position));
      assertEquals(back, [], `layer ${layer}, KV head ${head}`);
    })
  );
}

Deno.test("pyramidInfer() with more sinks than the context has tokens drops none of the prompt", async () => {
  using whole = await loadRandomLlama(gpu, MADE);
  const model = withKvPruning(pyramidInfer({ sinks: 200, minContext: 0, prefillDecay: 0.5 }))(whole);
  const ids = randomIds(60, VOCABULARY, 9);
  const { kept } = await generate(model, ids, { ...GREEDY, maxTokens: 3, traceKept: true }).record;
  for (const own of kept!.flat()) {
    const context = own.filter((position) => position < 60 - 13);
    // Sinks count inside what a layer keeps, and of more of them the first stay.
    assertEquals(context, [...context.keys()]);
  }
});

Deno.test("pyramidInfer() with keep 0.454 holds at most 45.4 % of the full cache's bytes", async () => {
  using whole = await loadRandomLlama(gpu, MADE);
  const model = withKvPruning(pyramidInfer({ keep: 0.454 }))(whole);
  for (const [length, maxTokens] of [[200, 100], [513, 200], [64, 400]]) {
    const options = { ...GREEDY, maxTokens: 2 };
    const ids = randomIds(length, VOCABULARY, 1);
    const plan = (one: Model) =>
      planRun(one, { promptTokens: length, maxTokens, device: deviceTraits(gpu) }).bytes.cache;
    assertLessOrEqual(plan(model), 0.454 * plan(whole), `${length} and ${maxTokens}`);
    assert(plan(model) > 0.95 * 0.454 * plan(whole) - 4096);
    const record = await generate(model, ids, { ...options, maxTokens: 100 }).record;
    const full = await generate(whole, ids, { ...options, maxTokens: 100 }).record;
    assertLessOrEqual(record.bytes.cache, 0.454 * full.bytes.cache, `${length}`);
  }
});

Deno.test("pyramidInfer() with decays of 1 is the unpruned model, though not to the bit", async () => {
  using whole = await loadRandomLlama(gpu, MADE);
  const policy = pyramidInfer({ prefillDecay: 1, genDecay: 1, genCompress: 1, minContext: 0 });
  const options = { ...GREEDY, maxTokens: 50 };
  const ids = randomIds(130, VOCABULARY, 1);
  const want = await generate(whole, ids, options).record;
  const got = await generate(withKvPruning(policy)(whole), ids, options).record;
  // The last layer computes the last row alone, by other kernels.
  assertAgree(got, want, "", 1e-5);
  assertEquals(got.cacheTokens, want.cacheTokens);
});

Deno.test("pyramidInfer() runs under a memory limit that the full cache does not fit under", async () => {
  const made = randomLlama({
    hidden_size: 16,
    intermediate_size: 16,
    num_hidden_layers: 8,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    head_dim: 64,
    vocab_size: VOCABULARY,
    max_position_embeddings: 1024,
  });
  const prompt = randomIds(480, VOCABULARY, 2);
  const options = { ...GREEDY, maxTokens: 30 };
  const prune = withKvPruning(pyramidInfer({ keep: 0.25 }));
  const peaks: number[] = [];
  {
    using free = await openGpu();
    using whole = await loadRandomLlama(free, made);
    for (const model of [whole, prune(whole)]) {
      peaks.push((await generate(model, prompt, options).record).bytes.peak);
    }
  }
  const [full, small] = peaks;
  assertLess(small, 0.9 * full);
  using limited = await openGpu({ memory: Math.floor((small + full) / 2) });
  using whole = await loadRandomLlama(limited, made);
  const { ids } = await generate(prune(whole), prompt, options).record;
  assertEquals(ids.length, 30);
  await assertRejects(() => generate(whole, prompt, options).record, GpuMemoryError);
});
