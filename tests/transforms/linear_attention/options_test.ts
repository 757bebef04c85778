// Options of linear attention out of their range are named, with the range, and before anything runs.

import { assertEquals, assertThrows } from "@std/assert";
import {
  alibiDecays,
  alibiSlopes,
  compose,
  cosFormer,
  diagAttention,
  gla,
  hybrid,
  lightningAttention,
  LINEAR_CORES,
  linearAttention,
  normAttention,
  paperDecays,
  parseLinearAttention,
  performer,
  retention,
  withLinearAttention,
} from "../../../mod.ts";
import type { FeatureMap, Transform } from "../../../lib/transforms/mod.ts";
import { sharedGpu } from "../../harness/kernel_case.ts";
import { loadRandomLlama, randomLlama } from "../../harness/random_llama.ts";
import { planRun } from "../../../mod.ts";

const gpu = await sharedGpu();

const REFUSED: readonly [make: () => unknown, message: string][] = [
  [() => diagAttention({ block: 0 }), "block must be a whole number from 1 to 1024: current value is 0"],
  [() => diagAttention({ block: 2000 }), "from 1 to 1024: current value is 2000"],
  [() => diagAttention({ score: "sigmoid" as "relu" }), "it must be one of softmax, relu"],
  [() => diagAttention({ scale: -1 }), "scale must be positive: current value is -1"],
  [
    () => normAttention({ featureMap: "elu+1" as FeatureMap }),
    'featureMap "elu+1" is unknown: it must be one of identity',
  ],
  [() => normAttention({ epsilon: 0 }), "epsilon must be positive: current value is 0"],
  [() => normAttention({ norm: "batch" as "rms" }), "it must be one of rms, layer, none"],
  [() => normAttention({ epsilonPlacement: "under" as "inside" }), "one of inside, additive"],
  [() => linearAttention({ epsilon: -1 }), "epsilon must be positive"],
  [() => cosFormer({ maxLength: 0 }), "maxLength must be a whole number from 1"],
  [() => cosFormer({ maxLength: 10, clamp: 0 }), "clamp must be positive"],
  [() => performer({ features: 7 }), "features must be a multiple of 4: current value is 7"],
  [() => performer({ features: 300 }), "features must be a whole number from 4 to 256"],
  [() => hybrid({ window: 0 }), "window must be a whole number from 1 to 1024"],
  [() => hybrid({ gate: 1.5 }), "gate must be over 0 and at most 1: current value is 1.5"],
  [() => gla({ gateScale: 0 }), "gateScale must be positive"],
  [() => lightningAttention({ formula: "retnet" as "alibi" }), "one of alibi, paper"],
  [
    () => parseLinearAttention("norm-atention"),
    "did you mean norm-attention? The cores are norm-attention, diag-attention",
  ],
  [() => parseLinearAttention("norm-attention:blok=3"), "Its options are layers, feature-map"],
  [
    () => parseLinearAttention("norm-attention:layers=5-3"),
    "layers takes numbers and ranges from 0, as 3-5 or 0-2/5",
  ],
];

for (const [make, message] of REFUSED) {
  Deno.test(`linear attention refuses: ${message}`, () => {
    assertThrows(make, RangeError, message);
  });
}

Deno.test("a decay outside of (0, 1], or one too few, is refused when the model is planned", async () => {
  using model = await loadRandomLlama(gpu, randomLlama());
  for (
    const [core, message] of [
      [lightningAttention({ decays: [0.5, 1.5] }), "A decay must be in (0, 1]: current value is 1.5"],
      [retention({ decays: [0, 0.5] }), "A decay must be in (0, 1]: current value is 0"],
      [retention({ decays: [0.5] }), "one decay for each of 2 KV heads: received 1"],
    ] as const
  ) {
    const swapped = withLinearAttention(core)(model);
    assertThrows(() => planRun(swapped, { promptTokens: 5, maxTokens: 5 }), RangeError, message);
  }
});

Deno.test("alibiDecays() are those of released checkpoints, paperDecays() those of the paper", () => {
  const close = (got: number, want: number) => assertEquals(got.toFixed(6), want.toFixed(6));
  // First and last head of 8 heads in layers 0, 12 and 23 of 24.
  for (const [layer, first, last] of [[0, 0.606528, 0.996101], [12, 0.787308, 0.998133], [23, 0.999995, 1]]) {
    const decays = alibiDecays(8, layer, 24).map(Math.exp);
    close(decays[0], first);
    close(decays.at(-1)!, last);
  }
  const twenty = alibiDecays(20, 0, 32).map(Math.exp);
  close(twenty[0], 0.493065);
  close(twenty.at(-1)!, 0.742818);
  close(Math.min(...twenty), 0.43132);
  assertEquals(alibiSlopes(4), [1 / 4, 1 / 16, 1 / 64, 1 / 256]);
  assertEquals(alibiDecays(4, 0, 1), alibiDecays(4, 0, 8));
  assertEquals(paperDecays(4, 0, 2), [0, -2, -4, -6]);
  assertEquals(paperDecays(4, 1, 2), [0, -1, -2, -3]);
});

Deno.test("compose() applies transforms from left to right", async () => {
  using model = await loadRandomLlama(gpu, randomLlama());
  const marked = (mark: string): Transform => (one) => ({
    ...one,
    config: { ...one.config, modelType: one.config.modelType + mark },
  });
  assertEquals(compose(marked("a"), marked("b"))(model).config.modelType, "llamaab");
  assertEquals(compose()(model), model);
});

Deno.test("every core of the registry is made by its name, with no option that it does not have", () => {
  for (const [name, { options, make }] of Object.entries(LINEAR_CORES)) {
    const core = make(name === "cosformer" ? { maxLength: 10 } : {}, 0, 1);
    assertEquals(core.kind, name);
    assertEquals(Object.keys(options).every((option) => /^[a-z]+([A-Z][a-z]*)*$/.test(option)), true);
  }
});
