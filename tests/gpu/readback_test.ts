import { assertEquals } from "@std/assert";
import { createRecorder, createStaging, type GpuAllocation, readBuffer } from "../../lib/gpu/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";

const gpu = await sharedGpu();

/** A buffer of the words 0, 1, 2 ... */
async function counted(words: number): Promise<GpuAllocation> {
  const allocation = await gpu.memory.allocate({
    label: "words",
    owner: "readback test",
    size: words * 4,
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
  });
  gpu.device.queue.writeBuffer(allocation.buffer, 0, Uint32Array.from({ length: words }, (_, i) => i));
  return allocation;
}

Deno.test("readBuffer() gives a range of a buffer and keeps nothing", async () => {
  const { buffer, release } = await counted(100);
  const before = gpu.memory.bytes;
  for (const [first, count] of [[0, 100], [0, 1], [99, 1], [7, 13], [5, 0]]) {
    const bytes = await readBuffer(gpu, buffer, first * 4, count * 4);
    assertEquals([...new Uint32Array(bytes)], Array.from({ length: count }, (_, i) => first + i));
  }
  assertEquals(gpu.memory.bytes, before);
  release();
});

Deno.test("readBuffer() reads side by side do not share a staging buffer", async () => {
  const { buffer, release } = await counted(8);
  const reads = await Promise.all([0, 1, 2, 3].map((i) => readBuffer(gpu, buffer, i * 8, 8)));
  assertEquals(reads.map((bytes) => [...new Uint32Array(bytes)]), [[0, 1], [2, 3], [4, 5], [6, 7]]);
  release();
});

Deno.test("createStaging() takes several copies of a submit and is read again and again", async () => {
  const { buffer, release } = await counted(16);
  const staging = await createStaging(gpu, 24);
  for (const first of [0, 8]) {
    const recorder = createRecorder(gpu);
    staging.copy(recorder.encoder(), buffer, first * 4, 8, 0);
    staging.copy(recorder.encoder(), buffer, (first + 4) * 4, 16, 8);
    gpu.device.queue.submit([recorder.finish()]);
    const words = new Uint32Array(await staging.read());
    assertEquals([...words], [first, first + 1, first + 4, first + 5, first + 6, first + 7]);
  }
  staging.release();
  release();
  assertEquals(gpu.memory.holders()["readback test"], undefined);
});
