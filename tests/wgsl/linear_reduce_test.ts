import { assertEquals } from "@std/assert";
import { defineKernel, type Kernel, read, write } from "../../wgsl/kernel.ts";
import { reduceArguments, reduceInputs, type WorkgroupReduce, workgroupReduce } from "../../wgsl/reduce.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { runKernel } from "../harness/run_kernel.ts";

const CALLS = 3;

/** Reduces three times in a row and writes what every invocation got. */
function reducer(spec: Omit<WorkgroupReduce, "name">): Kernel {
  const { size, subgroups, type = "f32" } = spec;
  const call = `reduced(value, ${reduceArguments(subgroups)})`;
  return defineKernel({
    name: `reduce ${size} ${spec.operation} ${type}`,
    parameters: { calls: "u32" },
    bindings: [read("x", `array<${type}>`), write("out", `array<${type}>`)],
    grid: () => [1, 1, 1],
    body: `${workgroupReduce({ ...spec, name: "reduced" })}
@compute @workgroup_size(${size})
fn main(@builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}) {
  for (var i = 0u; i < params.calls; i++) {
    let value = x[i * ${size}u + local];
    out[i * ${size}u + local] = ${call};
  }
}
`,
  });
}

const TYPES = [["f32", 1, false], ["u32", 1, true], ["vec2<f32>", 2, false], [
  "vec4<f32>",
  4,
  false,
]] as const;

for (const subgroups of [false, true]) {
  Deno.test({
    name: `workgroupReduce() gives every invocation the reduction (${
      subgroups ? "with" : "without"
    } subgroups)`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      for (const size of [1, 2, 4, 8, 32, 64, 256]) {
        for (const operation of ["add", "max"] as const) {
          for (const [type, components, unsigned] of TYPES) {
            if (type !== "f32" && size !== 64) continue;
            // Small integers, so that sums are exact in any order.
            const x = Float32Array.from(
              { length: CALLS * size * components },
              (_, i) => (i * 37 + (i >> 3) * 11) % 101 - (unsigned ? 0 : 50),
            );
            const stored = unsigned ? Uint32Array.from(x) : x;
            const out = new Float32Array(x.length).fill(NaN);
            const kernel = reducer({ size, operation, subgroups, type });
            const { outputs } = await runKernel(gpu, kernel, { calls: CALLS }, { x: stored, out });
            const want = x.map((_, i) => {
              const call = Math.floor(i / (size * components));
              const values = x.subarray(call * size * components, (call + 1) * size * components)
                .filter((_, j) => j % components === i % components);
              return operation === "add"
                ? values.reduce((a, b) => a + b)
                : values.reduce((a, b) => Math.max(a, b));
            });
            const got = unsigned
              ? Float32Array.from(new Uint32Array(outputs.out))
              : new Float32Array(outputs.out);
            assertEquals(got, want, kernel.name);
          }
        }
      }
    },
  });
}
