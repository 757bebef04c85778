import { checkCase, sharedGpu, VARIANTS } from "../harness/kernel_case.ts";
import { cases } from "./selection_cases.ts";

for (const variant of VARIANTS.filter(({ dtype }) => dtype === "f32")) {
  const all = cases(variant);
  for (const family of new Set(all.map((test) => test.family))) {
    Deno.test({
      name: `${family}() agrees with sorting (device ${variant.subgroups ? "with" : "without"} subgroups)`,
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
