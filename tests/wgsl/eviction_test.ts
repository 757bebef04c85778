import { assertThrows } from "@std/assert";
import { cacheAppend } from "../../wgsl/cache_append.ts";
import { checkCase, sharedGpu, type Variant } from "../harness/kernel_case.ts";
import { cases } from "./eviction_cases.ts";

// These kernels are the same in all variants.
const VARIANT: Variant = { dtype: "f32", subgroups: false };

const all = cases(VARIANT);
for (const family of new Set(all.map((test) => test.family))) {
  Deno.test({
    name: `${family}() agrees with the oracle on slots that are freed and used again`,
    // The device is shared by all tests and outlives them.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: true });
      for (const test of all.filter((test) => test.family === family)) await checkCase(gpu, test);
    },
  });
}

Deno.test("cacheAppend() rejects reuse of slots that all layers share", () => {
  assertThrows(() => cacheAppend({ sharedPositions: true, reuse: true }), TypeError, "never free one");
});
