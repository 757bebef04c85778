// PyramidInfer's paper algorithm against an f64 reference of the whole method: texts, and which tokens each layer keeps.

import { assert, assertEquals, assertLess, assertLessOrEqual, assertThrows } from "@std/assert";
import { generate, type GenerateRecord, planRun, session } from "../../../lib/generate/mod.ts";
import {
  parseKvPolicy,
  pyramidInfer,
  type PyramidInferOptions,
  withKvPruning,
} from "../../../lib/transforms/mod.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { essence, novelLlama } from "../../harness/models.ts";
import { loadRandomLlama, oracleTensors, randomIds, randomLlama } from "../../harness/random_llama.ts";
import {
  type PaperResult,
  type PaperSettings,
  PyramidInferPaperOracle,
} from "../../oracles/pyramid_infer_paper.ts";

const LAYERS = 4;
const made = randomLlama({
  hidden_size: 36,
  intermediate_size: 52,
  num_hidden_layers: LAYERS,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 12,
  vocab_size: 97,
  tie_word_embeddings: false,
  max_position_embeddings: 512,
}, 6);
const tensors = oracleTensors(made);
const model = await loadRandomLlama(await sharedGpu(), made);
const GREEDY = { temperature: 0, ignoreEos: true, logprobs: 1, traceKept: true } as const;
const DEFAULTS = { p: 0.95, pDecay: 0.99, recentRatio: 0.2, sinks: 4, distanceWeight: 1.2 };

interface PaperCase {
  readonly name: string;
  readonly options: PyramidInferOptions & { readonly minimum: number | readonly number[] };
  readonly slots?: PaperSettings["slots"];
  readonly seed: number;
}

/** Slots of a layer when a share of a turn's are dealt out evenly, the odd ones to the first layers. */
const even = (keep: number): NonNullable<PaperSettings["slots"]> => (layer, tokens, maxTokens) => {
  const total = Math.floor(keep * (LAYERS * (tokens + maxTokens)));
  return Math.min(tokens + maxTokens - 1, Math.floor(total / LAYERS) + (layer < total % LAYERS ? 1 : 0));
};

const CASES: readonly PaperCase[] = [
  { name: "as it is", options: { p: 0.9, pDecay: 0.9, minimum: 20 }, seed: 1 },
  {
    name: "with a minimum a layer, no sinks, few rows that score",
    options: { p: 0.7, pDecay: 0.95, minimum: [60, 45, 50, 1], sinks: 0, rowCap: 5, distanceWeight: 3 },
    seed: 2,
  },
  {
    name: "with a budget",
    options: { p: 0.98, pDecay: 1, minimum: 16, keep: 0.5, recentRatio: 0.1 },
    slots: even(0.5),
    seed: 13,
  },
  {
    name: "with a budget alone",
    options: { p: 1, pDecay: 1, minimum: 0, keep: 0.4, sinks: 2 },
    slots: even(0.4),
    seed: 4,
  },
];

function oracleOf({ options, slots }: PaperCase): PyramidInferPaperOracle {
  const { minimum, keep: _, ...own } = options;
  const byLayer = typeof minimum === "number" ? Array<number>(LAYERS).fill(minimum) : minimum;
  return new PyramidInferPaperOracle(made.config, tensors, {
    ...DEFAULTS,
    ...own,
    minimum: byLayer,
    ...(slots ? { slots } : {}),
  });
}

function assertTurn(record: GenerateRecord, want: PaperResult, name: string): void {
  // Heads share their tokens.
  assertEquals(record.kept, want.promptKept.map((own) => [own, own]), `${name}: kept of the prompt`);
  assertEquals(record.ids, want.ids, name);
  record.logprobs!.forEach(({ logprob }, i) =>
    assertLess(Math.abs(logprob - want.logprobs[i]), 1e-3, `${name}: ${i}`)
  );
  assertEquals(record.cacheTokens, want.kept.map(({ length }) => length), `${name}: tokens at the end`);
}

for (const one of CASES) {
  Deno.test(`pyramidInfer({ algorithm: "paper" }) ${one.name} equals an f64 reference in two turns`, async () => {
    const pruned = withKvPruning(pyramidInfer({ algorithm: "paper", ...one.options }))(model);
    const oracle = oracleOf(one);
    using chat = session(pruned);
    const first = randomIds(90, 97, one.seed);
    const want = oracle.turn(first, 50);
    assertTurn(await chat.generate(first, { ...GREEDY, maxTokens: 50 }).record, want, "first turn");
    assert(want.rows.every((count, layer) => count <= (want.rows[layer - 1] ?? 90)));
    assert(want.rows.at(-1)! < 90, "rows are dropped");
    const second = randomIds(30, 97, one.seed + 50);
    const next = oracle.turn([want.ids.at(-1)!, ...second], 12);
    assertTurn(await chat.generate(second, { ...GREEDY, maxTokens: 12 }).record, next, "second turn");
    assert(oracle.leastGap > 1e-6, `gap ${oracle.leastGap}`);
    assert(oracle.leastCut > 1e-7, `cut ${oracle.leastCut}`);
    assert(oracle.leastMargin > 1e-4, `margin ${oracle.leastMargin}`);
    assert(oracle.mostDropped > 0);
  });
}

Deno.test('pyramidInfer({ algorithm: "paper" }) packs prompts of a batch whose counts differ', async () => {
  const one = CASES[0];
  const pruned = withKvPruning(pyramidInfer({ algorithm: "paper", ...one.options }))(model);
  const prompts = [1, 70, 3, 131].map((length, i) => randomIds(length, 97, 20 + i));
  const records = await generate(pruned, prompts, { ...GREEDY, maxTokens: 20 }).record;
  for (const [i, prompt] of prompts.entries()) {
    const want = oracleOf(one).turn(prompt, 20);
    assertTurn(records[i], want, `prompt of ${prompt.length}`);
  }
});

Deno.test('pyramidInfer({ algorithm: "paper" }) allocates what its budget allows', () => {
  const options = { algorithm: "paper", keep: 0.5, minimum: 8, recentRatio: 0.1 } as const;
  const pruned = withKvPruning(pyramidInfer(options))(model);
  const bytes = (of: typeof model) => planRun(of, { promptTokens: 100, maxTokens: 61 }).bytes.cache;
  // The last of the new tokens is never fed.
  assertLessOrEqual(bytes(pruned), 0.5 * bytes(model) * 161 / 160);
  assertLess(0.47 * bytes(model), bytes(pruned));
});

Deno.test("slots that a few passes freed by the hundred are left alone while steps may be taken back", async () => {
  const policy = pyramidInfer({ algorithm: "paper", p: 0.97, pDecay: 1, minimum: 12, recentRatio: 0.02 });
  const pruned = withKvPruning(policy)(await novelLlama("f32"));
  const prompt = randomIds(400, 4096, 6);
  const first = { ...GREEDY, maxTokens: 48 };
  const free = await generate(pruned, prompt, { ...first, runAhead: 1 }).record;
  const dropped = free.kept!.map(([own], layer) => own.length + 47 - free.cacheTokens[layer]);
  assertLess(200, Math.max(...dropped));
  const stop = pruned.tokenizer!.decode(free.ids.slice(33, 38));
  const turnsOf = async (runAhead: number) => {
    using chat = session(pruned);
    const ended = await chat.generate(prompt, { ...first, stop, runAhead }).record;
    const next = await chat.generate(randomIds(20, 4096, 7), { ...GREEDY, maxTokens: 12, runAhead }).record;
    return [essence(ended), essence(next), next.kept, next.cacheTokens];
  };
  assertEquals(await turnsOf(64), await turnsOf(1));
});

Deno.test("pyramidInfer() refuses options that are not those of its algorithm", () => {
  const cases: [PyramidInferOptions, string][] = [
    [{ p: 0.9 }, 'p is an option of the algorithm "paper", and this is "code"'],
    [{ minimum: 9 }, "minimum is an option"],
    [{ algorithm: "paper", genBlock: 16 }, 'genBlock is an option of the algorithm "code"'],
    [{ algorithm: "paper", perKvHead: true }, "perKvHead is an option"],
    [{ algorithm: "paper", p: 1.1 }, "p must be a number from 0 to 1"],
    [{ algorithm: "paper", pDecay: -1 }, "pDecay must be a number from 0 to 1"],
    [{ algorithm: "paper", minimum: 1.5 }, "minimum must be a whole number from 0"],
    [{ algorithm: "paper", minimum: [3, -1] }, "minimum of layer 1 must be a whole number from 0"],
    [{ algorithm: "paper", recentRatio: 1 }, "recentRatio must be from 0 to below 1"],
    [{ algorithm: "box" as "paper" }, "algorithm must be one of code, paper"],
  ];
  for (const [options, message] of cases) assertThrows(() => pyramidInfer(options), RangeError, message);
  const turn = { tokens: 50, maxTokens: 10, position: 0 };
  assertThrows(
    () =>
      pyramidInfer({ algorithm: "paper", minimum: [3, 4] }).schedule(
        { layers: 3, heads: 2, kvHeads: 1 },
        turn,
      ),
    RangeError,
    "minimum must be one number, or one for each of 3 layers: received 2",
  );
  const parsed = parseKvPolicy("pyramid-infer:algorithm=paper,p=0.8,p-decay=0.9,minimum=5");
  assertEquals(parsed.options, { algorithm: "paper", p: 0.8, pDecay: 0.9, minimum: 5 });
});
