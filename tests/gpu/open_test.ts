import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { formatBytes, type Gpu, openGpu, readBuffer } from "../../lib/gpu/mod.ts";
import { replaceMembers } from "../harness/replace_members.ts";

const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** Puts another `navigator.gpu` in place while something runs. */
async function withNavigatorGpu<T>(replacement: unknown, run: () => Promise<T>): Promise<T> {
  Object.defineProperty(navigator, "gpu", { value: replacement, configurable: true });
  try {
    return await run();
  } finally {
    delete (navigator as { gpu?: unknown }).gpu;
  }
}

async function adapter(): Promise<GPUAdapter> {
  return (await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }))!;
}

/** Writes two words to a device and reads them back. */
async function works(gpu: Gpu): Promise<boolean> {
  const allocation = await gpu.memory.allocate({ label: "words", owner: "test", size: 8, usage: STORAGE });
  gpu.device.queue.writeBuffer(allocation.buffer, 0, new Uint32Array([3, 5]));
  const words = new Uint32Array(await readBuffer(gpu, allocation.buffer, 0, 8));
  allocation.release();
  return words[0] === 3 && words[1] === 5;
}

for (
  const [name, gpu] of [
    ["requestAdapter() gives none", { requestAdapter: () => Promise.resolve(null) }],
    ["there is no WebGPU", undefined],
  ] as const
) {
  Deno.test(`openGpu() says what to install when ${name}`, async () => {
    const { message } = await withNavigatorGpu(gpu, () => assertRejects(() => openGpu(), Error));
    assertStringIncludes(message, "No WebGPU adapter answers on this machine");
    assertStringIncludes(message, "apt-get install mesa-vulkan-drivers");
    for (const loader of ["libvulkan1", "libegl1", "libglvnd0", "libglx0", "libgl1"]) {
      assertStringIncludes(message, loader);
    }
  });
}

Deno.test("openGpu() is granted the adapter's own limits, not WebGPU's defaults", async () => {
  const { limits } = await adapter();
  using gpu = await openGpu();
  for (
    const name of [
      "maxBufferSize",
      "maxStorageBufferBindingSize",
      "maxUniformBufferBindingSize",
      "maxStorageBuffersPerShaderStage",
      "maxComputeWorkgroupStorageSize",
      "maxComputeInvocationsPerWorkgroup",
      "maxComputeWorkgroupSizeX",
      "maxComputeWorkgroupSizeY",
      "maxComputeWorkgroupSizeZ",
      "maxComputeWorkgroupsPerDimension",
      "maxBindingsPerBindGroup",
      "minUniformBufferOffsetAlignment",
      "minStorageBufferOffsetAlignment",
    ] as const
  ) assertEquals(gpu.limits[name], limits[name], name);
  const plain = await (await adapter()).requestDevice();
  assert(plain.limits.maxBufferSize < gpu.limits.maxBufferSize);
  plain.destroy();
  assert(await works(gpu));
});

Deno.test("openGpu() has the features that the adapter lists, and describes the adapter", async () => {
  const { features, info } = await adapter();
  using gpu = await openGpu();
  assertEquals(gpu.features.f16, features.has("shader-f16"));
  assertEquals(gpu.features.timestamps, features.has("timestamp-query"));
  assert(gpu.features.subgroupMinSize >= 4 && gpu.features.subgroupMinSize <= gpu.features.subgroupMaxSize);
  assertEquals(gpu.adapter.description, info.description);
  assertEquals(typeof gpu.adapter.isFallback, "boolean");
});

Deno.test("openGpu() without f16 or subgroups does not ask for them", async () => {
  using gpu = await openGpu({ withoutF16: true, withoutSubgroups: true });
  assertEquals([gpu.features.f16, gpu.features.subgroups], [false, false]);
  assertEquals(gpu.device.features.has("shader-f16"), false);
  assertEquals(gpu.device.features.has("subgroups" as GPUFeatureName), false);
  assert(await works(gpu));
});

Deno.test("openGpu() goes without subgroups where they are refused", async () => {
  const asked: string[][] = [];
  const refusing = {
    requestAdapter: async () => {
      const real = await adapterOnce();
      return replaceMembers(real, {
        requestDevice: (descriptor: GPUDeviceDescriptor) => {
          const features = [...descriptor.requiredFeatures ?? []] as string[];
          asked.push(features);
          if (features.includes("subgroups")) {
            return Promise.reject(new TypeError("unknown feature subgroups"));
          }
          return real.requestDevice(descriptor);
        },
      });
    },
  };
  const webgpu = navigator.gpu;
  const adapterOnce = async () => (await webgpu.requestAdapter())!;
  using gpu = await withNavigatorGpu(refusing, () => openGpu());
  assertEquals(gpu.features.subgroups, false);
  assertEquals(asked.map((features) => features.includes("subgroups")), [true, false]);
  assert(await works(gpu));
});

Deno.test("openGpu() names the adapter and the reason when it gives no device", async () => {
  const broken = {
    requestAdapter: async () =>
      replaceMembers(await real(), {
        requestDevice: () => Promise.reject(new Error("no memory for a device")),
      }),
  };
  const webgpu = navigator.gpu;
  const real = async () => (await webgpu.requestAdapter())!;
  const { info } = await real();
  const { message } = await withNavigatorGpu(broken, () => assertRejects(() => openGpu(), Error));
  assertStringIncludes(message, "gave no device: no memory for a device");
  assertStringIncludes(message, info.description || info.vendor);
});

Deno.test("openGpu() refuses a ceiling that is no positive number of bytes", async () => {
  for (const memory of [0, -1, NaN]) {
    await assertRejects(
      () => openGpu({ memory }),
      RangeError,
      `memory must be a positive number of bytes: current value is ${memory}`,
    );
  }
});

Deno.test("openGpu() keeps to a ceiling", async () => {
  using gpu = await openGpu({ memory: 1024 });
  assertEquals(gpu.memory.ceiling, 1024);
  const request = { label: "too much", owner: "test", size: 2048, usage: STORAGE };
  await assertRejects(() => gpu.memory.allocate(request), RangeError, "the memory ceiling is 1.00 KiB");
  assert(await works(gpu));
});

Deno.test("openGpu() takes a caller's own device and does not destroy it", async () => {
  const device = await (await adapter()).requestDevice();
  let lost = false;
  device.lost.then(() => lost = true);
  const gpu = await openGpu({ device });
  assertEquals(gpu.device, device);
  assertEquals(gpu.limits.maxBufferSize, device.limits.maxBufferSize);
  assertEquals([gpu.features.f16, gpu.features.subgroups, gpu.features.timestamps], [false, false, false]);
  assert(await works(gpu));
  gpu[Symbol.dispose]();
  // Still the caller's: another one can be opened over it.
  using again = await openGpu({ device });
  assert(await works(again));
  assertEquals(lost, false);
  device.destroy();
});

Deno.test("dispose() destroys the device that openGpu() opened, and may be called twice", async () => {
  const gpu = await openGpu();
  gpu[Symbol.dispose]();
  gpu[Symbol.dispose]();
  assertEquals((await gpu.device.lost).reason, "destroyed");
  const error = await assertRejects(() => gpu.guard(Promise.resolve(1)));
  assertInstanceOf(error, Error);
  assertStringIncludes(error.message, "was disposed of");
});

Deno.test("formatBytes() gives three digits and a unit", () => {
  assertEquals([0, 16, 1023, 1024, 10 * 1024, 3.25 * 2 ** 20, 80 * 2 ** 30, 2 ** 52].map(formatBytes), [
    "0 B",
    "16 B",
    "1023 B",
    "1.00 KiB",
    "10.0 KiB",
    "3.25 MiB",
    "80.0 GiB",
    "4096.0 TiB",
  ]);
});
