// Reading buffers back. `mapAsync` waits for all submitted work and then sleeps about 10 ms, so the decode loop keeps
// a staging buffer per submit and reads late; `readBuffer` is the plain way for everything else.

import type { Gpu } from "./open.ts";
import type { GpuAllocation } from "./memory.ts";

/** A staging buffer that one submit copies into and the host reads. */
export interface Staging {
  /** Size in bytes. */
  readonly size: number;
  /** Records a copy into the staging buffer at `target`. Sizes and offsets are multiples of 4. */
  copy(encoder: GPUCommandEncoder, source: GPUBuffer, offset: number, size: number, target: number): void;
  /** Waits for the submitted work and returns a copy of the content; call after the submit. */
  read(): Promise<ArrayBuffer>;
  /** Gives the buffer back. */
  release(): void;
}

/** Makes a staging buffer. */
export async function createStaging(gpu: Gpu, size: number, owner = "activations"): Promise<Staging> {
  const allocation: GpuAllocation = await gpu.memory.allocate({
    label: "staging",
    owner,
    size,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  const { buffer } = allocation;
  return {
    size: allocation.size,
    copy(encoder: GPUCommandEncoder, source: GPUBuffer, offset: number, bytes: number, target: number): void {
      encoder.copyBufferToBuffer(source, offset, buffer, target, bytes);
    },
    read(): Promise<ArrayBuffer> {
      // The call blocks until the device is idle; what follows the await is the 10 ms sleep.
      const mapped = buffer.mapAsync(GPUMapMode.READ, 0, size);
      return gpu.guard(mapped).then(() => {
        const copy = buffer.getMappedRange(0, size).slice(0);
        buffer.unmap();
        return copy;
      });
    },
    release: () => allocation.release(),
  };
}

/** Reads `size` bytes of a buffer from `offset` on, after all work submitted so far. Both are multiples of 4. */
export async function readBuffer(
  gpu: Gpu,
  source: GPUBuffer,
  offset: number,
  size: number,
): Promise<ArrayBuffer> {
  const staging = await createStaging(gpu, size);
  try {
    const encoder = gpu.device.createCommandEncoder();
    staging.copy(encoder, source, offset, size, 0);
    gpu.device.queue.submit([encoder.finish()]);
    return await staging.read();
  } finally {
    staging.release();
  }
}
