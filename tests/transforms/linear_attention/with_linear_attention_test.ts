// Linear attention put into a Llama: against the oracle with the same cores, and together with pruning.

import {
  assert,
  assertEquals,
  assertLess,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  alibiDecays,
  compose,
  deltaNet,
  diagAttention,
  generate,
  gla,
  lightningAttention,
  normAttention,
  planRun,
  pyramidInfer,
  score,
  session,
  withKvPruning,
  withLinearAttention,
} from "../../../mod.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { loadRandomLlama, oracleTensors, randomIds, randomLlama } from "../../harness/random_llama.ts";
import {
  type CoreOracle,
  llamaCache,
  llamaOracle,
  rotaryOracle,
  softmaxOracle,
} from "../../oracles/llama.ts";
import { rotate } from "../../oracles/attention.ts";
import { silu } from "../../oracles/linear_cores.ts";

const gpu = await sharedGpu();
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
const BLOCK = 20;
const FREQUENCIES = Float64Array.from({ length: 6 }, (_, i) => 10000 ** (-i / 6));
const GREEDY = { temperature: 0, logprobs: 1, ignoreEos: true } as const;

/** Layer 1 decays by position, layer 2 has blocks; softmax before and after them. */
const SWAP = compose(
  withLinearAttention((layer, layers) => lightningAttention({ layer, layers }), {
    layers: (layer) => layer === 1,
  }),
  withLinearAttention(diagAttention({ block: BLOCK }), { layers: (layer) => layer === 2 }),
);

/** The same by definition, over what the cache of the oracle has: its slots know their positions. */
function swappedOracle(left?: (layer: number, positions: readonly number[]) => number[]): CoreOracle {
  const softmax = softmaxOracle(rotaryOracle(MADE.config));
  const turned = (head: Float64Array, position: number) => rotate(head, position, "half", FREQUENCIES);
  return (rows) => {
    const { layer, positions, queries, keys, values, cache } = rows;
    if (layer === 0 || layer === 3) {
      const result = softmax(rows);
      const kept = left?.(layer, positions);
      return kept ? { values: kept.map((row) => result.values[row]), kept } : result;
    }
    const logs = alibiDecays(2, 1, 4);
    positions.forEach((position, row) =>
      keys[row].forEach((key, g) => {
        const stored = layer === 1 ? key.map(silu) : turned(key, position % BLOCK);
        cache.slots[layer][g].push({ position, key: stored, value: values[row][g] });
      })
    );
    const mixed = queries.map((heads, row) =>
      heads.map((query, head) => {
        const g = Math.floor(head / 3);
        const at = positions[row];
        const q = layer === 1 ? query.map(silu) : turned(query, at % BLOCK);
        const seen = cache.slots[layer][g].filter(({ position }) =>
          position <= at && (layer === 1 || Math.floor(position / BLOCK) === Math.floor(at / BLOCK))
        );
        const scores = seen.map(({ key }) => key.reduce((sum, x, c) => sum + x * q[c], 0));
        const most = Math.max(...scores);
        const weights = layer === 1
          ? scores.map((s, j) => s * Math.exp((at - seen[j].position) * logs[g]))
          : scores.map((s) => Math.exp((s - most) / Math.sqrt(12)));
        const total = layer === 1 ? 1 : weights.reduce((a, b) => a + b, 0);
        return query.map((_, c) =>
          seen.reduce((sum, { value }, j) => sum + weights[j] * value[c], 0) / total
        );
      })
    );
    if (layer === 2) return { values: mixed };
    return {
      values: mixed.map((heads) => {
        const mean = heads.reduce((sum, head) => sum + head.reduce((a, x) => a + x * x, 0), 0) / 72;
        return heads.map((head) => head.map((x) => x / Math.sqrt(mean + 1e-6)));
      }),
    };
  };
}

/** Greedy tokens and their log-probabilities by the oracle. */
function greedy(prompt: readonly number[], count: number, core: (feed: number) => CoreOracle) {
  const cache = llamaCache(MADE.config);
  const tensors = oracleTensors(MADE);
  const tokens: { id: number; logprob: number }[] = [];
  let ids = [...prompt];
  let position = 0;
  for (let i = 0; i < count; i++) {
    const { logits } = llamaOracle(MADE.config, tensors, ids, {
      cache,
      core: core(i),
      positions: ids.map((_, at) => position + at),
    });
    position += ids.length;
    const last = logits.slice(-VOCABULARY);
    const most = Math.max(...last);
    const id = last.indexOf(most);
    tokens.push({ id, logprob: -Math.log(last.reduce((sum, x) => sum + Math.exp(x - most), 0)) });
    ids = [id];
  }
  return tokens;
}

Deno.test("withLinearAttention() swaps the cores of the layers named, in prompts and decode", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  const prompt = randomIds(150, VOCABULARY, 3);
  const swapped = SWAP(model);
  const { ids, logprobs, cacheTokens, linearized, warnings } = await generate(swapped, prompt, {
    ...GREEDY,
    maxTokens: 50,
  }).record;
  const want = greedy(prompt, 50, () => swappedOracle());
  assertEquals(ids, want.map(({ id }) => id));
  logprobs!.forEach(({ logprob }, i) => assertLess(Math.abs(logprob - want[i].logprob), 1e-4));
  assertEquals(cacheTokens, [199, 0, 0, 199]);
  assertEquals(linearized!.map(({ core, layers }) => [core, layers]), [
    ["lightning-attention", [1]],
    ["diag-attention", [2]],
  ]);
  assertStringIncludes(warnings![0], "was not trained with it");
  // The model itself is as it was, and shares its weights.
  const own = await generate(model, prompt, { ...GREEDY, maxTokens: 20 }).record;
  assertEquals(own.linearized, undefined);
  assertNotEquals(own.ids, ids.slice(0, 20));
  assertEquals(swapped.store, model.store);
});

for (
  const [name, policy, tokens] of [
    [
      "planned",
      pyramidInfer({ minContext: 8, prefillDecay: 0.4, prefillDecayStrategy: "constant", sameLayer: true }),
      200,
    ],
    ["counted", pyramidInfer({ algorithm: "paper", p: 0.6, minimum: 4 }), 200],
    ["counted, of few rows", pyramidInfer({ algorithm: "paper", p: 0.4, minimum: 2 }), 30],
  ] as const
) {
  Deno.test(`pruning applies to the softmax layers that remain; decays and blocks go by original positions (${name})`, async () => {
    using model = await loadRandomLlama(gpu, MADE);
    const thin = compose(SWAP, withKvPruning(policy))(model);
    const prompt = randomIds(tokens, VOCABULARY, 5);
    const { ids, logprobs, kept, cacheTokens } = await generate(thin, prompt, {
      ...GREEDY,
      maxTokens: name === "planned" ? 30 : 1,
      traceKept: true,
    }).record;
    assertEquals(kept!.length, 2);
    const rows = kept![0][0];
    assert(rows.length < tokens * 0.75, `${rows.length} rows are left`);
    // Layers 1 and 2 get what the first softmax layer left; of the second one's slots the oracle takes those that are kept.
    const want = greedy(prompt, ids.length, (feed) => {
      const core = swappedOracle((layer, positions) =>
        layer === 0 && feed === 0
          ? positions.flatMap((position, row) => rows.includes(position) ? [row] : [])
          : positions.map((_, row) => row)
      );
      return (input) => {
        const result = core(input);
        const { layer, cache } = input;
        if (feed === 0 && (layer === 0 || layer === 3)) {
          const keep = new Set(kept![layer === 0 ? 0 : 1][0]);
          for (const slots of cache.slots[layer]) {
            slots.splice(0, slots.length, ...slots.filter(({ position }) => keep.has(position)));
          }
        }
        return result;
      };
    });
    assertEquals(ids, want.map(({ id }) => id));
    logprobs!.forEach(({ logprob }, i) =>
      assertLess(Math.abs(logprob - want[i].logprob), 1e-4, `token ${i}`)
    );
    assertEquals(cacheTokens.map((count) => count > 0), [true, false, false, true]);
  });
}

Deno.test("a batch of different lengths is each of its prompts alone, and a fork goes on by itself", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  const linear = withLinearAttention(normAttention())(SWAP(model));
  const prompts = [randomIds(70, VOCABULARY, 6), randomIds(3, VOCABULARY, 7), randomIds(200, VOCABULARY, 8)];
  const options = { ...GREEDY, maxTokens: 24 };
  const batch = await generate(linear, prompts, options).record;
  for (const [i, prompt] of prompts.entries()) {
    const alone = await generate(linear, prompt, options).record;
    assertEquals(batch[i].ids, alone.ids);
    assertEquals(alone.cacheTokens, [0, 0, 0, 0]);
  }
  // To the bit, when asked: the third prompt is cut into steps elsewhere than alone, the second is fed by fewer rows.
  const long = [...prompts, randomIds(700, VOCABULARY, 11)];
  const exact = { ...options, maxTokens: 6, batchInvariant: true };
  const together = await generate(linear, long, exact).record;
  for (const [i, prompt] of long.entries()) {
    const alone = await generate(linear, prompt, exact).record;
    assertEquals([together[i].ids, together[i].logprobs], [alone.ids, alone.logprobs]);
  }
  // Second turns after a stop inside of a submit, and in a fork, equal one that was never interrupted.
  const turns = async (runAhead: number) => {
    using talk = session(linear);
    const stop = [batch[0].ids[9]];
    const first = await talk.generate(prompts[0], { ...options, stopIds: stop, ignoreEos: false, runAhead })
      .record;
    using copy = await talk.fork();
    const second = await talk.generate(prompts[1], { ...options, runAhead }).record;
    const forked = await copy.generate(prompts[1], { ...options, runAhead }).record;
    return [first.ids, second.ids, forked.ids, second.logprobs];
  };
  const want = await turns(1);
  assertEquals(want[1], want[2]);
  assertEquals(await turns(64), want);
});

Deno.test("a linear model has no position limit, a state of constant size, and is scored in one pass or many", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  const linear = withLinearAttention(normAttention())(model);
  const long = await generate(linear, randomIds(1020, VOCABULARY, 9), { ...GREEDY, maxTokens: 20 }).record;
  assertEquals(long.ids.length, 20);
  assertStringIncludes(long.warnings!.at(-1)!, "over the 1024 that the model was made for");
  const [short, far] = [100, 100_000].map((promptTokens) => planRun(linear, { promptTokens, maxTokens: 10 }));
  assertEquals(short.bytes.cache, far.bytes.cache);
  assertEquals(
    far.layers.map(({ index, kind, cacheTokens, cacheBytes }) => [index, kind, cacheTokens, cacheBytes]),
    [
      [0, "state", 0, 0],
      [1, "state", 0, 0],
      [2, "state", 0, 0],
      [3, "state", 0, 0],
    ],
  );
  assertEquals(far.layers[0].kvBytes, 2 * 100_010 * 2 * 12 * 4);
  assertEquals(short.bytes.cache, long.bytes.cache);
  const ids = randomIds(300, VOCABULARY, 10);
  const whole = await score(linear, ids);
  assertEquals(whole.window, 1024);
  assertEquals(whole.tokens, 299);
});

Deno.test("withLinearAttention() refuses what cannot be, in words", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  assertThrows(
    () => withLinearAttention(normAttention(), { layers: () => false })(model),
    RangeError,
    "0 to 3",
  );
  assertThrows(() => withLinearAttention(gla())(model), TypeError, 'gla needs a projection "decay"');
  assertThrows(
    () => withLinearAttention(deltaNet())(model),
    TypeError,
    'delta-net needs a projection "beta"',
  );
  const lean = withKvPruning(pyramidInfer())(model);
  assertThrows(() => withLinearAttention(normAttention())(lean), TypeError, "pruned already");
});

Deno.test("a core that needs a projection takes one that is given, and it is a weight of the model", async () => {
  using model = await loadRandomLlama(gpu, MADE);
  const decay = { name: "decay", rows: 24, columns: 36, dtype: "f32" as const };
  await model.store!.allocate(decay);
  model.store!.write(decay, 0, new Uint8Array(new Float32Array(24 * 36).map((_, i) => Math.sin(i)).buffer));
  const gated = withLinearAttention(gla(), {
    layers: (layer) => layer > 1,
    projections: () => ({ decay: { weight: decay, first: 0, rows: 24 } }),
  })(model);
  assertEquals(gated.weights.at(-1), decay);
  const { ids } = await generate(gated, [1, 2, 3], { ...GREEDY, maxTokens: 5 }).record;
  assertEquals(ids.length, 5);
});
