// score() with a context that is not scored, of whole and of pruned models.

import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { loadModel } from "../../lib/models/mod.ts";
import { score } from "../../lib/generate/mod.ts";
import { pyramidInfer, snapKv, withKvPruning } from "../../lib/transforms/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { NOVEL_LLAMA } from "../harness/models.ts";
import { randomIds } from "../harness/random_llama.ts";

const gpu = await sharedGpu();
const model = await loadModel(gpu, NOVEL_LLAMA, { dtype: "f32" });
const IDS = randomIds(120, 4096, 5);

Deno.test("score() with a context leaves its tokens out and scores the others alike", async () => {
  const all = await score(model, IDS, { window: 64, stride: 24 });
  const some = await score(model, IDS, { window: 120, context: 50 });
  const whole = await score(model, IDS, { window: 120 });
  assertEquals([all.tokens, some.tokens], [119, 70]);
  assertEquals([...some.nll], [...whole.nll.subarray(49)]);
  const windows = await score(model, IDS, { window: 64, stride: 24, context: 30 });
  assertEquals([...windows.nll].map((x) => x.toFixed(4)), [...all.nll.subarray(29)].map((x) => x.toFixed(4)));
});

Deno.test("score() of a pruned model decodes what it scores after a context", async () => {
  const whole = await score(model, IDS, { context: 80 });
  const kept = await score(withKvPruning(pyramidInfer({ keep: 1 }))(model), IDS, { context: 80 });
  whole.nll.forEach((loss, i) => assertLess(Math.abs(kept.nll[i] - loss), 1e-4));
  // Evicts nothing in decode, so that a prompt of one token leaves it no choice.
  const cut = withKvPruning(snapKv({ keep: 0.6 }))(model);
  assertEquals((await score(cut, IDS, { context: 80 })).tokens, 40);
  await assertRejects(() => score(cut, IDS), RangeError, "compose it with a policy that does");
});

Deno.test("score() refuses a context that leaves nothing to score", async () => {
  await assertRejects(() => score(model, IDS, { context: 120 }), RangeError, "context must be from 1 to 119");
  await assertRejects(() => score(model, IDS, { window: 20, context: 20 }), RangeError, "from 1 to 19");
  await assertRejects(() => score(model, IDS, { context: 1.5 }), RangeError, "context must be from 1");
});
