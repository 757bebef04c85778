import { checkCase, sharedGpu, VARIANTS } from "../harness/kernel_case.ts";
import { cases } from "./nucleus_cases.ts";

const [variant] = VARIANTS;
const all = cases(variant);
for (const family of new Set(all.map((test) => test.family))) {
  Deno.test({
    name: `${family}() agrees with sorting and adding up`,
    // The device is shared by all tests and outlives them.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const gpu = await sharedGpu();
      for (const test of all.filter((test) => test.family === family)) await checkCase(gpu, test);
    },
  });
}
