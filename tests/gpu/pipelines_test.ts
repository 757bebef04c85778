import { assertEquals, assertRejects, assertStrictEquals, assertStringIncludes } from "@std/assert";
import { type Gpu, KernelError, openGpu } from "../../lib/gpu/mod.ts";
import { numberedLines } from "../../lib/gpu/pipelines.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { replaceMembers } from "../harness/replace_members.ts";

const DOUBLE = {
  name: "double",
  code: `@group(0) @binding(0) var<uniform> params: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> values: array<u32>;
@compute @workgroup_size(1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) { values[id.x] *= 2u; }`,
  access: ["write"] as const,
};

/** A `Gpu` over the shared device that counts what is compiled. */
async function counting(): Promise<
  { gpu: Gpu; count: { modules: number; pipelines: number; layouts: number } }
> {
  const { device } = await sharedGpu();
  const count = { modules: 0, pipelines: 0, layouts: 0 };
  const gpu = await openGpu({
    device: replaceMembers(device, {
      createShaderModule: (descriptor: GPUShaderModuleDescriptor) => {
        count.modules++;
        return device.createShaderModule(descriptor);
      },
      createComputePipelineAsync: (descriptor: GPUComputePipelineDescriptor) => {
        count.pipelines++;
        return device.createComputePipelineAsync(descriptor);
      },
      createBindGroupLayout: (descriptor: GPUBindGroupLayoutDescriptor) => {
        count.layouts++;
        return device.createBindGroupLayout(descriptor);
      },
    }),
  });
  return { gpu, count };
}

Deno.test("compile() compiles a source once, also when it is asked for in parallel", async () => {
  const { gpu, count } = await counting();
  const [a, b] = await Promise.all([gpu.pipelines.compile(DOUBLE), gpu.pipelines.compile(DOUBLE)]);
  const c = await gpu.pipelines.compile({ ...DOUBLE, name: "the same source under another name" });
  assertStrictEquals(a, b);
  assertStrictEquals(a, c);
  assertEquals(a.name, "double");
  assertEquals(count, { modules: 1, pipelines: 1, layouts: 1 });
  assertEquals(gpu.pipelines.size, 1);
  assertEquals(a.compileMs >= 0, true);
  const other = await gpu.pipelines.compile({ ...DOUBLE, code: `${DOUBLE.code}\n` });
  assertEquals([a === other, gpu.pipelines.size], [false, 2]);
  // Bind groups of kernels with the same access are interchangeable.
  assertStrictEquals(a.layout, other.layout);
});

/** Compiles a bad kernel and gives the message. */
async function failure(code: string, access: ("read" | "write")[] = [], device?: GPUDevice): Promise<string> {
  const gpu = device ? await openGpu({ device }) : await sharedGpu();
  const size = gpu.pipelines.size;
  const error = await assertRejects(
    () => gpu.pipelines.compile({ name: "wrong kernel", code, access }),
    KernelError,
  );
  assertEquals(error instanceof SyntaxError, true);
  assertEquals(gpu.pipelines.size, size, "a failure is not cached");
  gpu.check();
  return error.message;
}

Deno.test("compile() shows the kernel's name and the numbered lines around a WGSL error", async () => {
  const lines = [
    "// line 1",
    "// line 2",
    "// line 3",
    "// line 4",
    "@compute @workgroup_size(1)",
    "fn main() {",
    "  let x: u32 = 1.5;",
    "}",
    "// line 9",
    "// line 10",
    "// line 11",
    "// line 12",
  ];
  const message = await failure(lines.join("\n"));
  assertStringIncludes(message, "Kernel wrong kernel does not compile: ");
  assertStringIncludes(message, "u32");
  assertStringIncludes(
    message,
    [
      "    3 | // line 3",
      "    4 | // line 4",
      "    5 | @compute @workgroup_size(1)",
      "    6 | fn main() {",
      ">   7 |   let x: u32 = 1.5;",
      "    8 | }",
      "    9 | // line 9",
      "   10 | // line 10",
      "   11 | // line 11",
    ].join("\n"),
  );
  assertEquals(message.includes("line 2"), false);
  assertEquals(message.includes("line 12"), false);
});

Deno.test("compile() shows the name and all lines when a pipeline cannot be made", async () => {
  const message = await failure("@compute @workgroup_size(1)\nfn other() {\n}");
  assertStringIncludes(message, "Kernel wrong kernel cannot be made a pipeline: ");
  assertStringIncludes(message, "main");
  assertStringIncludes(message, "    1 | @compute @workgroup_size(1)\n    2 | fn other() {\n    3 | }");
});

Deno.test("compile() says so when a kernel's bindings are not those that are declared for it", async () => {
  const message = await failure(DOUBLE.code);
  assertStringIncludes(message, "Kernel wrong kernel cannot be made a pipeline: ");
  assertStringIncludes(message, "binding: 1");
});

Deno.test("compile() says so when a kernel has more bindings than the device allows", async () => {
  // Without limits asked for, a device has the least that WebGPU guarantees: 8 storage buffers.
  const device = await (await navigator.gpu.requestAdapter())!.requestDevice();
  const access = Array(device.limits.maxStorageBuffersPerShaderStage + 1).fill("read");
  const message = await failure("@compute @workgroup_size(1)\nfn main() {\n}", access, device);
  device.destroy();
  assertStringIncludes(message, "Kernel wrong kernel cannot be made a pipeline: ");
  assertStringIncludes(message, "    2 | fn main() {");
});

Deno.test("compile() fails in parallel requests alike, and can succeed later", async () => {
  const { gpu, count } = await counting();
  const wrong = { name: "wrong", code: "fn main( {", access: [] };
  const results = await Promise.allSettled([gpu.pipelines.compile(wrong), gpu.pipelines.compile(wrong)]);
  assertEquals(results.map(({ status }) => status), ["rejected", "rejected"]);
  assertEquals(count.modules, 1);
  await assertRejects(() => gpu.pipelines.compile(wrong), KernelError);
  assertEquals(count.modules, 2);
  assertEquals((await gpu.pipelines.compile(DOUBLE)).name, "double");
});

Deno.test("numberedLines() marks a line and shows those around it", () => {
  const code = "a\nb\nc\nd\ne";
  assertEquals(numberedLines(code, 1, 1), ">   1 | a\n    2 | b");
  assertEquals(numberedLines(code, 5, 1), "    4 | d\n>   5 | e");
  assertEquals(numberedLines(code, 0).split("\n").length, 5);
});
