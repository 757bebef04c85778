// Policies at their limits: everything kept, short prompts, the least budget, equal scores, batches.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { generate, session } from "../../../lib/generate/mod.ts";
import {
  adaKv,
  composePolicies,
  expectedAttention,
  fastKv,
  h2o,
  keyDiff,
  knorm,
  KV_POLICIES,
  type KvPolicy,
  pyramidKv,
  randomPolicy,
  snapKv,
  streamingLlm,
  tova,
  withKvPruning,
} from "../../../lib/transforms/mod.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { essence, novelLlama } from "../../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../../harness/random_llama.ts";

const made = randomLlama({ num_hidden_layers: 3, vocab_size: 96 }, 4);
const model = await loadRandomLlama(await sharedGpu(), made);
const OPTIONS = { temperature: 0, ignoreEos: true, logprobs: 2 } as const;

/** Policies with small windows, by their budgets. */
const POLICIES: Readonly<Record<string, (keep: number) => KvPolicy>> = {
  snapKv: (keep) => snapKv({ keep, window: 2, kernel: 3 }),
  pyramidKv: (keep) => pyramidKv({ keep, window: 2, kernel: 3 }),
  adaKv: (keep) => adaKv({ keep, window: 2, kernel: 3 }),
  fastKv: (keep) => fastKv({ keep, window: 2, kernel: 3 }),
  h2o: (keep) => h2o({ keep, recent: 2 }),
  tova: (keep) => tova({ keep }),
  streamingLlm: (keep) => streamingLlm({ keep, sinks: 2 }),
  "streamingLlm, original": (keep) => streamingLlm({ keep, sinks: 2, positions: "original" }),
  knorm: (keep) => knorm({ keep }),
  keyDiff: (keep) => keyDiff({ keep }),
  expectedAttention: (keep) => expectedAttention({ keep, sinks: 1 }),
  randomPolicy: (keep) => randomPolicy({ keep }),
  "snapKv, then tova": (keep) => composePolicies(snapKv({ keep, window: 2, kernel: 3 }), tova()),
  "pyramidKv, then h2o": (keep) => composePolicies(pyramidKv({ keep, window: 2 }), h2o({ recent: 2 })),
  "fastKv, then streamingLlm": (keep) =>
    composePolicies(fastKv({ keep, window: 2 }), streamingLlm({ sinks: 2 })),
  "adaKv, then tova": (keep) => composePolicies(adaKv({ keep, window: 2 }), tova()),
};

Deno.test("Every policy that keeps everything gives the bits of the plain model", async () => {
  const ids = randomIds(50, 96, 2);
  const plain = await generate(model, ids, { ...OPTIONS, maxTokens: 12 }).record;
  const policies = [
    ...Object.entries(POLICIES).map(([name, make]) => [name, make(1)] as const),
    // Without a budget nothing is dropped of so short a prompt, rows aside.
    ...Object.entries(KV_POLICIES).filter(([name]) => !["pyramid-infer", "fast-kv"].includes(name))
      .map(([name, { make }]) => [`${name} without a budget`, make()] as const),
  ];
  for (const [name, policy] of policies) {
    const record = await generate(withKvPruning(policy)(model), ids, { ...OPTIONS, maxTokens: 12 }).record;
    assertEquals(essence(record), essence(plain), name);
    assertEquals(record.cacheTokens, [61, 61, 61], name);
  }
});

Deno.test("Prompts of 1 to 8 tokens run with the least budget that is said to do", async () => {
  for (const [name, make] of Object.entries(POLICIES)) {
    for (const tokens of [1, 2, 3, 5, 8]) {
      const maxTokens = 10;
      const shape = { layers: 3, heads: 4, kvHeads: 2 };
      const turn = { tokens, maxTokens, position: 0 };
      const { message } = assertThrows(() => make(0.01).schedule(shape, turn), RangeError);
      const least = Number(/^keep must be from ([0-9.]+) to 1 for /.exec(message)?.[1]);
      assertThrows(
        () => make(least - 1e-4).schedule(shape, turn),
        RangeError,
        `keep must be from ${least} to 1`,
      );
      const pruned = withKvPruning(make(least))(model);
      const { ids, cacheTokens } = await generate(pruned, randomIds(tokens, 96, 9), { ...OPTIONS, maxTokens })
        .record;
      assertEquals(ids.length, maxTokens, name);
      const kept = cacheTokens.reduce((a, b) => a + b, 0);
      assert(
        kept <= least * 3 * (tokens + maxTokens),
        `${name}, ${tokens} tokens: ${cacheTokens} with ${least}`,
      );
    }
  }
});

Deno.test("A batch of different lengths gives each prompt what it gives alone", async () => {
  const prompts = [31, 64, 3].map((length, i) => randomIds(length, 96, 20 + i));
  for (const [name, make] of Object.entries(POLICIES)) {
    const pruned = withKvPruning(make(0.75))(model);
    const options = { ...OPTIONS, maxTokens: 4, traceKept: true } as const;
    const records = await generate(pruned, prompts, options).record;
    for (const [i, prompt] of prompts.entries()) {
      const alone = await generate(pruned, prompt, options).record;
      const { ids, kept, cacheTokens } = records[i];
      assertEquals(
        [ids, kept, cacheTokens],
        [alone.ids, alone.kept, alone.cacheTokens],
        `${name}, prompt ${i}`,
      );
    }
  }
});

Deno.test("Of equal scores the first tokens are kept, and the first heads get more", async () => {
  const even = randomLlama({ num_hidden_layers: 3, vocab_size: 96 }, 4);
  for (const [name, { data }] of even.tensors) if (name.includes("q_proj")) data.fill(0);
  const model = await loadRandomLlama(await sharedGpu(), even);
  const [tokens, maxTokens] = [60, 3];
  const turn = { tokens, maxTokens, position: 0 };
  const shape = { layers: 3, heads: 4, kvHeads: 2 };
  const first = (count: number, window: number) => [
    ...Array.from({ length: count }, (_, i) => i),
    ...Array.from({ length: window }, (_, i) => tokens - window + i),
  ];
  const ids = randomIds(tokens, 96, 3);
  const options = { ...OPTIONS, maxTokens, traceKept: true } as const;
  for (const name of ["snapKv", "pyramidKv", "h2o", "tova", "snapKv, then tova"]) {
    const policy = POLICIES[name](0.5);
    const { kept } = await generate(withKvPruning(policy)(model), ids, options).record;
    const wanted = policy.schedule(shape, turn).layers.map(({ keepSlots, window }) =>
      first(keepSlots, window)
    );
    assertEquals(kept, wanted.map((own) => [own, own]), name);
  }
  const { kept, bytes } = await generate(withKvPruning(POLICIES.adaKv(0.5))(model), ids, options).record;
  const { keepSlots } = POLICIES.adaKv(0.5).schedule(shape, turn).layers[2];
  const sure = Math.floor(0.2 * keepSlots);
  const won = Math.min(58 - sure, 2 * (keepSlots - sure));
  assertEquals(kept![2], [first(sure + won, 2), first(2 * keepSlots - sure - won, 2)]);
  const { bytes: evenly } = await generate(withKvPruning(POLICIES.snapKv(0.5))(model), ids, options).record;
  assertEquals(bytes.cache, evenly.cache);
});

Deno.test("A second turn after a stop inside a submit goes on as if nothing had run ahead", async () => {
  const novel = await novelLlama();
  const prompt = "The rain had not stopped for three days, and the road to the village was under water. ";
  for (const name of ["h2o", "streamingLlm", "adaKv, then tova"]) {
    const pruned = withKvPruning(POLICIES[name](0.4))(novel);
    const run = async (runAhead: number) => {
      using chat = session(pruned);
      const options = { ...OPTIONS, maxTokens: 20, runAhead };
      const plain = await chat.generate(prompt, options).record;
      const [, word] = plain.text.trim().split(/\s+/);
      using other = session(pruned);
      const first = await other.generate(prompt, { ...options, stop: [word] }).record;
      using fork = await other.fork();
      const second = await other.generate(" Then he", options).record;
      assertEquals(essence(await fork.generate(" Then he", options).record), essence(second), name);
      return { first: essence(first), second: essence(second), cacheTokens: second.cacheTokens };
    };
    const one = await run(1);
    assert(one.first.ids!.length < 15, name);
    assertEquals(await run(16), one, name);
  }
});
