import { assert, assertEquals, assertThrows } from "@std/assert";
import { columnScores } from "../../wgsl/column_scores.ts";
import { SELECTION_WORDS } from "../../wgsl/tables.ts";
import { checkCase, sharedGpu, type Variant, VARIANTS } from "../harness/kernel_case.ts";
import { type HostArray, runKernel } from "../harness/run_kernel.ts";
import { cases, wholeAttention } from "./column_scores_cases.ts";

// The device is shared by all tests and outlives them.
const shared = { sanitizeOps: false, sanitizeResources: false };
const VARIANT: Variant = { dtype: "f32", subgroups: false };

for (const variant of VARIANTS) {
  Deno.test({
    name: `columnScores() agrees with the f64 oracle (${variant.dtype}, ${
      variant.subgroups ? "with" : "without"
    } subgroups)`,
    ...shared,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !variant.subgroups });
      for (const test of cases(variant)) await checkCase(gpu, test);
    },
  });
}

Deno.test({
  name: "columnScores() shares out the whole attention of a prompt",
  ...shared,
  fn: async () => {
    const { kernel, parameters, data, meanWeight } = wholeAttention(VARIANT);
    const { outputs } = await runKernel(
      await sharedGpu({ withoutSubgroups: true }),
      kernel,
      parameters,
      data(),
    );
    const scores = new Float32Array(outputs.scores).filter((score) => score !== Infinity);
    const sum = scores.reduce((sum, score) => sum + score, 0);
    assert(Math.abs(sum - meanWeight) < 1e-5, `sum is ${sum}, mean weight ${meanWeight}`);
  },
});

Deno.test({
  name: "columnScores() gives a sequence the same bits whatever else is in the step",
  ...shared,
  fn: async () => {
    const gpu = await sharedGpu({ withoutSubgroups: true });
    for (const { kernel, parameters, data } of cases(VARIANT)) {
      const all = data();
      const selections = all.selections as Uint32Array;
      const bits = async (data: Record<string, HostArray>): Promise<Uint32Array> =>
        new Uint32Array((await runKernel(gpu, kernel, parameters, data)).outputs.scores);
      const together = await bits(all);
      // What no sequence writes is as it was.
      const apart = new Uint32Array(all.scores.slice().buffer);
      for (let s = 0; s < parameters.sequences; s++) {
        const at = s * SELECTION_WORDS;
        const [first, count] = selections.subarray(at);
        const only = selections.slice().fill(0);
        only.set(selections.subarray(at, at + SELECTION_WORDS), at);
        const alone = await bits({ ...all, selections: only });
        for (let head = 0; head < parameters.kvHeads; head++) {
          const start = head * parameters.stride + first;
          apart.set(alone.subarray(start, start + count), start);
        }
      }
      assertEquals(apart, together);
    }
  },
});

Deno.test("columnScores() takes no head or group that does not fit", () => {
  assertThrows(
    () => columnScores({ dtype: "f32", headSize: 10, groupSize: 1 }),
    RangeError,
    "headSize must be a multiple of 4 from 4 to 256: current value is 10",
  );
  assertThrows(
    () => columnScores({ dtype: "f32", headSize: 8, groupSize: 1.5 }),
    RangeError,
    "groupSize must be a whole number from 1 on: current value is 1.5",
  );
});
