// PyramidInfer on the GPU against the naive oracle: greedy tokens, and the tokens that every layer and KV head keeps, with
// their keys and values, after the prompt and at the end. Keys and values tell the hidden states that entered a layer.

import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { pyramidInfer } from "../../../lib/transforms/kv_pruning/pyramid_infer.ts";
import { withKvPruning } from "../../../lib/transforms/kv_pruning/with_kv_pruning.ts";
import { relativeError } from "../../harness/compare.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { largestDifference } from "../../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../../harness/random_llama.ts";
import { type KeptKeyValues, tracedRun } from "../../harness/traced_run.ts";
import type { Slot } from "../../oracles/attention.ts";
import {
  CASES,
  CLEAR,
  GROUPED,
  LOGPROB_TOLERANCE,
  oracleOf,
  sceneOf,
  settledOf,
} from "./pyramid_infer_cases.ts";

const MAX_TOKENS = 101;
const gpu = await sharedGpu();

type Positions = readonly (readonly (readonly number[])[])[];

/** Asserts that the same tokens are kept, and tells only which are not. */
function assertKept(got: Positions, want: Positions, when: string): void {
  const missing = (from: Positions, other: Positions) =>
    from.flatMap((heads, layer) =>
      heads.flatMap((own, head) => {
        const there = new Set(other[layer][head]);
        const lost = own.filter((position) => !there.has(position));
        return lost.length ? [`layer ${layer}, KV head ${head}: ${lost}`] : [];
      })
    );
  assertEquals({ missing: missing(want, got), extra: missing(got, want) }, { missing: [], extra: [] }, when);
  assertEquals(got, want, when);
}

function assertKeyValues(
  got: readonly (readonly KeptKeyValues[])[],
  want: readonly (readonly (readonly Slot[])[])[],
  when: string,
): void {
  want.forEach((heads, layer) =>
    heads.forEach((own, head) => {
      const { keys, values } = got[layer][head];
      const place = `${when}, layer ${layer}, KV head ${head}`;
      assertLess(relativeError(keys, own.flatMap(({ key }) => [...key])), 2e-5, `keys ${place}`);
      assertLess(relativeError(values, own.flatMap(({ value }) => [...value])), 2e-5, `values ${place}`);
    })
  );
}

for (const test of CASES) {
  Deno.test(`pyramidInfer() does what the oracle does (${test.name})`, async () => {
    const { made, ids } = sceneOf(test);
    using whole = await loadRandomLlama(gpu, made);
    const model = withKvPruning(pyramidInfer(test.options))(whole);
    const turn = { tokens: ids.length, maxTokens: MAX_TOKENS, position: 0 };
    const oracle = oracleOf({ made, options: test.options });
    const want = oracle.turn({ ids, maxTokens: MAX_TOKENS, settings: settledOf(model, turn) });
    // A choice by less than this might fall otherwise in f32: then the seed is of no use.
    assertGreater(oracle.leastGap, CLEAR.gap);
    assertGreater(oracle.leastMargin, CLEAR.margin);
    for (const what of test.drops) assertGreater(want.dropped[what], 0, what);
    assertGreater(new Set(want.ids).size, 15, "a text that goes round in circles shows little");

    const [got] = await tracedRun(model, [ids], { maxTokens: MAX_TOKENS, steps: 50, keyValues: true });
    assertKept(got.history[0], want.promptKept, "after the prompt");
    assertKeyValues(got.keyValues[0], want.promptSlots, "after the prompt");
    assertKept(got.history[1], want.history[49], "after 50 rows");
    assertEquals(got.ids, want.ids);
    assertLess(largestDifference(got.logprobs, want.logprobs), LOGPROB_TOLERANCE);
    assertKept(got.history[2], want.kept, "at the end");
    assertKeyValues(got.keyValues[1], want.slots, "at the end");
    assertEquals(got.tokens, want.kept.map(([own]) => own.length));
  });
}

for (const sinks of [0, 2, 40]) {
  Deno.test(`pyramidInfer() does what the oracle does with prompts of 1 to 8 tokens and ${sinks} sinks`, async () => {
    const made = randomLlama({ ...GROUPED, num_hidden_layers: 3 }, 2);
    using whole = await loadRandomLlama(gpu, made);
    const options = {
      minContext: 0,
      prefillDecay: 0.1,
      genBlock: 4,
      recentRatio: 0.3,
      sameLayer: true,
      sinks,
    };
    const model = withKvPruning(pyramidInfer(options))(whole);
    let selected = 0;
    for (let length = 1; length <= 8; length++) {
      const ids = randomIds(length, GROUPED.vocab_size!, length);
      const oracle = oracleOf({ made, options });
      const want = oracle.turn({ ids, maxTokens: 24 });
      assertGreater(oracle.leastGap, CLEAR.gap);
      assertGreater(oracle.leastMargin, CLEAR.margin);
      const [got] = await tracedRun(model, [ids], { maxTokens: 24 });
      assertKept(got.history[0], want.promptKept, `after ${length} tokens`);
      assertEquals(got.ids, want.ids, `${length} tokens`);
      assertKept(got.history[1], want.kept, `at the end, ${length} tokens`);
      assertGreater(want.dropped.compressed, 0);
      selected += want.dropped.selected;
    }
    assertGreater(selected, 0);
  });
}
