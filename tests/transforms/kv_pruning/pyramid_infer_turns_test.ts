// PyramidInfer over several turns of a session against the naive oracle: whatever ended a turn, the next one goes on from
// what was accepted, and prunes its own rows.

import { assert, assertEquals, assertLess } from "@std/assert";
import {
  type GenerateOptions,
  type GenerateRecord,
  type Session,
  session,
} from "../../../lib/generate/mod.ts";
import { pyramidInfer } from "../../../lib/transforms/kv_pruning/pyramid_infer.ts";
import type { PyramidInferOptions } from "../../../lib/transforms/kv_pruning/pyramid_infer_options.ts";
import { withKvPruning } from "../../../lib/transforms/kv_pruning/with_kv_pruning.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { largestDifference } from "../../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../../harness/random_llama.ts";
import { CLEAR, GROUPED, LOGPROB_TOLERANCE, oracleOf, settledOf } from "./pyramid_infer_cases.ts";

const gpu = await sharedGpu();

interface TurnCase {
  readonly name: string;
  readonly options: PyramidInferOptions;
  readonly seed: number;
  readonly runAheads: readonly number[];
}

/** How a turn is run: its prompt, its most tokens, and what ends it sooner. */
interface TurnOfCase {
  readonly promptTokens: number;
  readonly maxTokens: number;
  readonly end: "length" | "stop id" | "break";
}

const TURNS: readonly TurnOfCase[] = [
  { promptTokens: 70, maxTokens: 50, end: "length" },
  { promptTokens: 37, maxTokens: 60, end: "stop id" },
  { promptTokens: 1, maxTokens: 40, end: "length" },
  { promptTokens: 20, maxTokens: 150, end: "break" },
  { promptTokens: 9, maxTokens: 30, end: "length" },
];
/** Tokens after which a turn is ended at the soonest. */
const SOON = 20;

const CASES: readonly TurnCase[] = [
  { name: "released settings", options: { minContext: 8, prefillDecay: 0.5 }, seed: 1, runAheads: [64] },
  {
    name: "same layer, each KV head by itself",
    options: { minContext: 8, prefillDecay: 0.5, sameLayer: true, perKvHead: true, recentRatio: 0.1 },
    seed: 1,
    runAheads: [64],
  },
  { name: "keep 0.5", options: { keep: 0.5 }, seed: 1, runAheads: [64] },
  {
    name: "keep 0.45, each KV head by itself",
    options: { keep: 0.45, perKvHead: true },
    seed: 1,
    runAheads: [1, 8, 64],
  },
];

/** A token that a turn would have after some others, and not before. */
async function lateToken(
  turns: Session,
  prompt: readonly number[],
  options: GenerateOptions,
): Promise<number> {
  using free = await turns.fork();
  const { ids } = await free.generate(prompt, options).record;
  return ids.slice(SOON, -10).find((id, i) => ids.indexOf(id) === SOON + i)!;
}

for (const test of CASES) {
  for (const runAhead of test.runAheads) {
    Deno.test(`session() with pyramidInfer() is the oracle's in every turn (${test.name}, run-ahead ${runAhead})`, async () => {
      const made = randomLlama({ ...GROUPED, num_hidden_layers: 4 }, test.seed);
      using whole = await loadRandomLlama(gpu, made);
      const model = withKvPruning(pyramidInfer(test.options))(whole);
      const oracle = oracleOf({ made, options: test.options });
      using turns = session(model);
      let position = 0;
      let pending: readonly number[] = [];
      let past: readonly number[] | undefined;
      for (const [i, { promptTokens, maxTokens, end }] of TURNS.entries()) {
        const prompt = randomIds(promptTokens, GROUPED.vocab_size!, 10 * test.seed + i);
        const ids = [...pending, ...prompt];
        const turn = { tokens: ids.length, maxTokens, position, ...(past ? { past } : {}) };
        const settings = settledOf(model, turn);
        const options = { maxTokens, temperature: 0, logprobs: 1, traceKept: true, runAhead };
        let record: GenerateRecord;
        if (end === "stop id") {
          const stopIds = [await lateToken(turns, prompt, options)];
          record = await turns.generate(prompt, { ...options, stopIds }).record;
        } else if (end === "break") {
          const run = turns.generate(prompt, options);
          let seen = 0;
          for await (const piece of run) {
            seen += piece.ids.length;
            if (seen >= SOON) break;
          }
          record = await run.record;
        } else record = await turns.generate(prompt, options).record;
        const stopped = end === "stop id";
        const { length } = record.ids;
        if (end !== "length") assert(length >= SOON && length < maxTokens, `${end} after ${length}`);
        const feed = stopped ? length : length - 1;
        const want = oracle.turn({ ids, maxTokens, feed, settings });
        const place = `turn ${i}`;
        const clear = oracle.leastGap > CLEAR.gap && oracle.leastMargin > CLEAR.margin;
        // Where a turn that is broken off ends depends on the clock: then there may be choices that f32 cannot tell.
        if (TURNS.slice(0, i + 1).some(({ end }) => end === "break") && !clear) return;
        assert(clear, `${oracle.leastGap}, ${oracle.leastMargin}`);
        assertEquals(record.kept, want.promptKept.map((heads) => heads.map((own) => [...own])), place);
        assertEquals(record.ids, want.ids.slice(0, length), place);
        const logprobs = record.logprobs!.map(({ logprob }) => logprob);
        assertLess(largestDifference(logprobs, want.logprobs.slice(0, length)), LOGPROB_TOLERANCE, place);
        past = want.kept.map(([own]) => own.length);
        position += ids.length + feed;
        pending = stopped ? [] : want.ids.slice(-1);
      }
    });
  }
}
