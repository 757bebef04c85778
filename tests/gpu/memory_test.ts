import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { GpuMemoryError } from "../../lib/gpu/mod.ts";
import { createMemory, type Memory } from "../../lib/gpu/memory.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { exhaustMemory } from "./exhaust_memory.ts";
import { fakeDevice } from "./fake_device.ts";

const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
const MIB = 2 ** 20;

function request(size: number, owner = "test", usage = STORAGE) {
  return { label: `a buffer of ${owner}`, owner, size, usage };
}

function make(options: { memory?: number; ceiling?: number; maxBufferSize?: number } = {}) {
  const { memory, ceiling, maxBufferSize = 2 ** 40 } = options;
  const fake = fakeDevice(memory, { maxBufferSize });
  return { fake, memory: createMemory(fake.device, ceiling, () => {}) };
}

Deno.test("allocate() counts bytes by owner until they are released", async () => {
  const { memory } = make();
  assertEquals([memory.bytes, memory.peak, memory.holders()], [0, 0, {}]);
  const a = await memory.allocate(request(32, "weights"));
  const b = await memory.allocate(request(64, "cache"));
  const c = await memory.allocate(request(16, "weights"));
  assertEquals(memory.bytes, 112);
  assertEquals(memory.holders(), { weights: 48, cache: 64 });
  b.release();
  assertEquals(memory.bytes, 48);
  assertEquals(memory.holders(), { weights: 48 });
  a.release();
  c.release();
  assertEquals([memory.bytes, memory.holders()], [0, {}]);
  assertEquals(memory.peak, 112);
  memory.resetPeak();
  assertEquals(memory.peak, 0);
});

Deno.test("allocate() rounds sizes up to 16 bytes and counts what the buffer has", async () => {
  const { memory, fake } = make();
  for (const [asked, got] of [[0, 16], [1, 16], [16, 16], [17, 32], [4093, 4096]]) {
    const before = memory.bytes;
    const allocation = await memory.allocate(request(asked));
    assertEquals([allocation.size, allocation.buffer.size, memory.bytes - before], [got, got, got]);
  }
  assertEquals(memory.bytes, fake.bytes());
});

Deno.test("allocate() refuses sizes that are no number of bytes", async () => {
  const { memory, fake } = make();
  for (const size of [-1, 1.5, NaN, Infinity]) {
    await assertRejects(() => memory.allocate(request(size)), RangeError, `size is ${size} bytes`);
  }
  assertEquals(fake.buffers, []);
});

Deno.test("release() twice gives the bytes back once", async () => {
  const { memory } = make();
  const kept = await memory.allocate(request(48));
  const freed = await memory.allocate(request(32));
  freed.release();
  freed.release();
  assertEquals([memory.bytes, memory.pooled], [48, 32]);
  const next = await memory.allocate(request(32));
  const other = await memory.allocate(request(32));
  assert(next.buffer !== other.buffer);
  kept.release();
});

Deno.test("allocate() takes a freed buffer of the same size and usage from the pool", async () => {
  const { memory, fake } = make();
  const first = await memory.allocate(request(64));
  first.release();
  assertEquals([memory.bytes, memory.pooled], [0, 64]);
  const otherUsage = await memory.allocate(request(64, "test", GPUBufferUsage.UNIFORM));
  const otherSize = await memory.allocate(request(80));
  const same = await memory.allocate(request(64));
  assertStrictEquals(same.buffer, first.buffer);
  assert(otherUsage.buffer !== first.buffer);
  assert(otherSize.buffer !== first.buffer);
  assertEquals([memory.bytes, memory.pooled, fake.buffers.length], [208, 0, 3]);
});

Deno.test("release() keeps at most 256 MiB for reuse and destroys the rest", async () => {
  const { memory, fake } = make();
  const all = await Promise.all([200, 100, 56].map((size) => memory.allocate(request(size * MIB))));
  for (const allocation of all) allocation.release();
  assertEquals(memory.pooled, 256 * MIB);
  assertEquals(fake.bytes(), 256 * MIB);
  memory.trim();
  assertEquals([memory.pooled, fake.bytes()], [0, 0]);
});

Deno.test("allocate() over the ceiling says what was asked, the ceiling and who holds what, before it allocates", async () => {
  const { memory, fake } = make({ ceiling: 10 * MIB });
  const weights = await memory.allocate(request(6 * MIB, "weights"));
  await memory.allocate(request(1.5 * MIB, "cache"));
  const made = fake.buffers.length;
  const error = await assertRejects(() => memory.allocate(request(3 * MIB, "activations")), GpuMemoryError);
  assertEquals(
    error.message,
    "Cannot allocate 3.00 MiB for a buffer of activations: the memory ceiling is 10.0 MiB and held now: " +
      "weights 6.00 MiB, cache 1.50 MiB. Raise the ceiling (memory), shorten the prompt or maxTokens, or use a smaller model",
  );
  assertEquals(fake.buffers.length, made);
  assertEquals(memory.holders(), { weights: 6 * MIB, cache: 1.5 * MIB });
  weights.release();
  assertEquals((await memory.allocate(request(3 * MIB))).size, 3 * MIB);
});

Deno.test("allocate() up to the ceiling to the byte", async () => {
  const { memory } = make({ ceiling: 64 });
  await memory.allocate(request(64));
  await assertRejects(() => memory.allocate(request(1)), GpuMemoryError, "the memory ceiling is 64 B");
});

Deno.test("allocate() side by side cannot pass the ceiling together", async () => {
  const { memory } = make({ ceiling: 100 });
  const results = await Promise.allSettled([1, 2, 3].map(() => memory.allocate(request(48))));
  assertEquals(results.map(({ status }) => status), ["fulfilled", "fulfilled", "rejected"]);
  assertEquals(memory.bytes, 96);
});

Deno.test("allocate() frees pooled buffers that would stand in the way of the ceiling", async () => {
  const { memory, fake } = make({ ceiling: 100 });
  (await memory.allocate(request(64))).release();
  assertEquals(memory.pooled, 64);
  await memory.allocate(request(80));
  assertEquals([memory.bytes, memory.pooled, fake.bytes()], [80, 0, 80]);
});

Deno.test("require() checks without allocating", async () => {
  const { memory, fake } = make({ ceiling: 100 });
  await memory.allocate(request(64, "cache"));
  memory.require(36, "more");
  assertThrows(
    () => memory.require(37, "the weights of a model"),
    GpuMemoryError,
    "37 B for the weights of a model",
  );
  assertEquals(fake.buffers.length, 1);
  make().memory.require(2 ** 50, "anything, without a ceiling");
});

Deno.test("allocate() over maxBufferSize says so before it allocates", async () => {
  const { memory, fake } = make({ maxBufferSize: 1024 });
  await assertRejects(
    () => memory.allocate(request(1025)),
    GpuMemoryError,
    "Cannot allocate 1.02 KiB for a buffer of test: this device allows buffers of at most 1.00 KiB",
  );
  assertEquals([fake.buffers.length, memory.bytes], [0, 0]);
  await memory.allocate(request(1024));
});

Deno.test("allocate() on a device out of memory says who holds what, and leaks nothing", async () => {
  const { memory, fake } = make({ memory: 1000 });
  const weights = await memory.allocate(request(800, "weights"));
  const error = await assertRejects(() => memory.allocate(request(480, "cache")), GpuMemoryError);
  assertEquals(
    error.message,
    "The device could not allocate 480 B for a buffer of cache (Out of memory); held now: weights 800 B. " +
      "Free memory on the device, set a ceiling (memory), or use a smaller model, batch or context",
  );
  assertEquals([memory.bytes, memory.holders()], [800, { weights: 800 }]);
  assertEquals(fake.buffers.map(({ destroyed }) => destroyed), [0, 1]);
  weights.release();
  await memory.allocate(request(800, "cache"));
});

Deno.test("allocate() on a device out of memory frees the pool and tries again", async () => {
  const { memory, fake } = make({ memory: 1000 });
  (await memory.allocate(request(640))).release();
  await memory.allocate(request(480));
  assertEquals([memory.bytes, memory.pooled, fake.bytes()], [480, 0, 480]);
});

Deno.test("allocate() refuses a usage that WebGPU refuses, and leaks nothing", async () => {
  const gpu = await sharedGpu();
  const before = gpu.memory.bytes;
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.MAP_WRITE;
  await assertRejects(
    () => gpu.memory.allocate(request(16, "test", usage)),
    GpuMemoryError,
    "could not allocate 16 B",
  );
  assertEquals(gpu.memory.bytes, before);
  gpu.check();
});

Deno.test("dispose() destroys every buffer once, pooled and live, and ends allocation", async () => {
  const { memory, fake } = make();
  const live = await memory.allocate(request(16));
  (await memory.allocate(request(32))).release();
  memory.trim();
  (await memory.allocate(request(48))).release();
  memory.dispose();
  assertEquals(fake.buffers.map(({ destroyed }) => destroyed), [1, 1, 1]);
  await assertRejects(() => memory.allocate(request(16)), GpuMemoryError, "the GPU device was disposed of");
  live.release();
  assertEquals(memory.bytes, 0);
});

Deno.test("dispose() reaches an allocation that is under way", async () => {
  const { memory, fake } = make();
  const pending = memory.allocate(request(16));
  memory.dispose();
  await assertRejects(() => pending, GpuMemoryError, "the GPU device was disposed of");
  assertEquals([memory.bytes, fake.bytes()], [0, 0]);
});

Deno.test("allocate() on a device that is lost meanwhile tells the loss and leaks nothing", async () => {
  const fake = fakeDevice();
  let lost = false;
  const memory: Memory = createMemory(fake.device, undefined, () => {
    if (lost) throw new Error("lost");
  });
  const pending = memory.allocate(request(16));
  lost = true;
  await assertRejects(() => pending, Error, "lost");
  await assertRejects(() => memory.allocate(request(16)), Error, "lost");
  assertEquals([memory.bytes, fake.bytes(), fake.buffers.length], [0, 0, 1]);
});

const { isFallback } = (await sharedGpu()).adapter;

Deno.test({
  name: "allocate() until a graphics card runs out of memory ends in words, and the device goes on",
  ignore: isFallback,
  fn: exhaustMemory,
});

Deno.test({
  name: "allocate() until a CPU driver runs out of address space ends in words, and the device goes on",
  // Without the limit it would take the memory of the whole machine; what is not written to takes none.
  ignore: !isFallback || Deno.build.os !== "linux",
  fn: async () => {
    const script = fromFileUrl(new URL("exhaust_memory.ts", import.meta.url));
    const { code, stderr } = await new Deno.Command("sh", {
      args: [
        "-c",
        'ulimit -v 200000000 && exec "$@"',
        "sh",
        Deno.execPath(),
        "run",
        "-A",
        "--no-check",
        script,
      ],
      stdout: "null",
      stderr: "piped",
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
  },
});
