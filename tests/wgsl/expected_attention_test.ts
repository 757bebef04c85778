import { assertThrows } from "@std/assert";
import { expectedLogits, expectedScores } from "../../wgsl/expected_attention.ts";
import { checkCase, sharedGpu, VARIANTS } from "../harness/kernel_case.ts";
import { cases } from "./expected_attention_cases.ts";

for (const variant of VARIANTS) {
  const label = `${variant.dtype}, device ${variant.subgroups ? "with" : "without"} subgroups`;
  const all = cases(variant);
  for (const family of new Set(all.map((test) => test.family))) {
    Deno.test({
      name: `${family}() agrees with the f64 oracle (${label})`,
      // The device is shared by all tests and outlives them.
      sanitizeOps: false,
      sanitizeResources: false,
      fn: async () => {
        const gpu = await sharedGpu({ withoutSubgroups: !variant.subgroups });
        for (const test of all.filter((test) => test.family === family)) await checkCase(gpu, test);
      },
    });
  }
}

Deno.test("expectedLogits() and expectedScores() take no head that does not come in words", () => {
  for (const headSize of [0, 6, 260, NaN]) {
    const message = `headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`;
    assertThrows(() => expectedLogits({ dtype: "f32", headSize, groupSize: 1 }), RangeError, message);
    assertThrows(
      () => expectedScores({ dtype: "f32", headSize, groupSize: 1, valueNorms: true }),
      RangeError,
      message,
    );
  }
});
