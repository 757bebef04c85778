// Pruned models in f16 against the f64 references, which round what is stored in f16 (matrices, rotated keys, values) and
// nothing else.

import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { pyramidInfer, type PyramidInferOptions, withKvPruning } from "../../../lib/transforms/mod.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { largestDifference } from "../../harness/models.ts";
import {
  loadRandomLlama,
  oracleTensors,
  randomIds,
  type RandomLlama,
  randomLlama,
} from "../../harness/random_llama.ts";
import { tracedRun } from "../../harness/traced_run.ts";
import { pyramidInferOracle } from "../../oracles/pyramid_infer.ts";
import { PyramidInferPaperOracle } from "../../oracles/pyramid_infer_paper.ts";
import { GROUPED, settingsOf, settledOf } from "./pyramid_infer_cases.ts";

/**
 * Where f32 and f64 round a stored number to different neighbours, that number is off by 2^-11 of itself: less than
 * choices may hang on, and more than log-probabilities are off by together.
 */
const CLEAR = { gap: 1e-4, share: 1e-5, margin: 1e-3 } as const;
const LOGPROB_TOLERANCE = 2e-4;
const MAX_TOKENS = 61;
const gpu = await sharedGpu();

/** The nearest numbers in f16. */
const rounded = (vector: Float64Array): Float64Array => Float64Array.from(new Float16Array(vector));

/** Tensors as they are stored: vectors stay f32. */
function storedTensors(made: RandomLlama): Map<string, Float64Array> {
  return new Map(
    [...oracleTensors(made)].map(([name, data]) => [
      name,
      made.tensors.get(name)!.shape.length > 1 ? rounded(data) : data,
    ]),
  );
}

const CASES: readonly {
  readonly name: string;
  readonly options: PyramidInferOptions;
  readonly seed: number;
}[] = [
  { name: "released settings", options: { prefillDecay: 0.6, minContext: 8 }, seed: 1 },
  { name: "a budget", options: { keep: 0.4, perKvHead: true }, seed: 2 },
];

for (const { name, options, seed } of CASES) {
  Deno.test({
    name: `pyramidInfer() in f16 does what the oracle does (${name})`,
    ignore: !gpu.features.f16,
    fn: async () => {
      const made = randomLlama({ ...GROUPED, num_hidden_layers: 3 }, seed);
      using whole = await loadRandomLlama(gpu, made, "f16");
      const model = withKvPruning(pyramidInfer(options))(whole);
      const ids = randomIds(80, made.config.vocab_size, seed);
      const settings = settledOf(model, { tokens: ids.length, maxTokens: MAX_TOKENS, position: 0 });
      const oracle = pyramidInferOracle(made.config, storedTensors(made), settingsOf(options), rounded);
      const want = oracle.turn({ ids, maxTokens: MAX_TOKENS, settings });
      const [got] = await tracedRun(model, [ids], { maxTokens: MAX_TOKENS, steps: 60 });
      assertGreater(oracle.leastGap, CLEAR.gap);
      assertGreater(oracle.leastMargin, CLEAR.margin);
      assertEquals(got.history[0], want.promptKept);
      assertEquals(got.ids, want.ids);
      assertEquals(got.history[1], want.kept);
      assertLess(largestDifference(got.logprobs, want.logprobs), LOGPROB_TOLERANCE);
    },
  });
}

Deno.test({
  name: "the paper's pyramidInfer() in f16 does what the oracle does",
  ignore: !gpu.features.f16,
  fn: async () => {
    const made = randomLlama({ ...GROUPED, num_hidden_layers: 3 }, 3);
    using whole = await loadRandomLlama(gpu, made, "f16");
    const settings = { p: 0.9, pDecay: 0.9, recentRatio: 0.2, sinks: 4, distanceWeight: 1.2 };
    const model = withKvPruning(pyramidInfer({ algorithm: "paper", ...settings, minimum: 30 }))(whole);
    const ids = randomIds(80, made.config.vocab_size, 3);
    const oracle = new PyramidInferPaperOracle(
      made.config,
      storedTensors(made),
      { ...settings, minimum: [30, 30, 30] },
      rounded,
    );
    const want = oracle.turn(ids, MAX_TOKENS);
    const [got] = await tracedRun(model, [ids], { maxTokens: MAX_TOKENS, steps: 60 });
    assertGreater(Math.min(oracle.leastGap, oracle.leastCut), CLEAR.share);
    assertGreater(oracle.leastMargin, CLEAR.margin);
    assertEquals(got.history[0], want.promptKept.map((own) => [own, own]));
    assertEquals(got.ids, want.ids);
    assertEquals(got.history[1], want.kept.map((own) => [own, own]));
    assertLess(largestDifference(got.logprobs, want.logprobs), LOGPROB_TOLERANCE);
  },
});
