import { assertThrows } from "@std/assert";
import { compactSlots } from "../../wgsl/compact_slots.ts";
import { stageSlots } from "../../wgsl/stage_slots.ts";
import { checkCase, sharedGpu, VARIANTS } from "../harness/kernel_case.ts";
import { cases } from "./compaction_cases.ts";

for (const variant of VARIANTS) {
  const label = `${variant.dtype}, device ${variant.subgroups ? "with" : "without"} subgroups`;
  const all = cases(variant);
  for (const family of new Set(all.map((test) => test.family))) {
    Deno.test({
      name: `${family}() does exactly what the oracle does (${label})`,
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

Deno.test("compactSlots() and stageSlots() refuse heads that do not come in words", () => {
  for (const headSize of [0, 6, NaN]) {
    assertThrows(() => compactSlots({ dtype: "f32", headSize }), RangeError, "multiple of 4");
    assertThrows(() => stageSlots({ dtype: "f32", headSize }), RangeError, "multiple of 4");
  }
});
