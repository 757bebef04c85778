// Allocates until a device runs out of memory, and checks what is said then and that the device goes on. Run by itself,
// it does so in a process of its own, whose address space the caller may have limited.

import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type GpuAllocation, GpuMemoryError, openGpu, readBuffer } from "../../lib/gpu/mod.ts";

const USAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** Fills a device of its own; throws where it does not behave. */
export async function exhaustMemory(): Promise<void> {
  using gpu = await openGpu();
  const allocate = (size: number) =>
    gpu.memory.allocate({ label: "a hog", owner: "hogs", size, usage: USAGE });
  const held: GpuAllocation[] = [];
  const size = Math.min(gpu.limits.maxBufferSize, 4 * 2 ** 30) - 16;
  const error = await assertRejects(async () => {
    for (let total = 0; total < 2 ** 41; total += size) held.push(await allocate(size));
  }, GpuMemoryError);
  assertMatch(
    error.message,
    /^The device could not allocate \S+ GiB for a hog \(.+\); held now: hogs \S+ GiB\. Free/,
  );
  assertEquals(gpu.memory.bytes, held.reduce((sum, allocation) => sum + allocation.size, 0));
  for (const allocation of held) allocation.release();
  gpu.memory.trim();
  assertEquals([gpu.memory.bytes, gpu.memory.pooled], [0, 0]);
  const { buffer } = await allocate(16);
  gpu.device.queue.writeBuffer(buffer, 0, new Uint32Array([7, 8]));
  assertEquals([...new Uint32Array(await readBuffer(gpu, buffer, 0, 8))], [7, 8]);
}

if (import.meta.main) await exhaustMemory();
