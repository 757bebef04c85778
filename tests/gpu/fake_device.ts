// A stand-in for a device that only counts buffers.

/** A device that hands out buffers without memory. */
export interface FakeDevice {
  /** What is passed as the device. */
  readonly device: GPUDevice;
  /** Buffers that were made, in order, with how often each was destroyed. */
  readonly buffers: { readonly size: number; readonly usage: number; destroyed: number }[];
  /** Bytes of buffers that were made and not destroyed. */
  bytes(): number;
}

/** Makes a device with so much memory: what does not fit is told in its out-of-memory scope, as WebGPU does. */
export function fakeDevice(
  memory = Infinity,
  limits: { maxBufferSize: number } = { maxBufferSize: 2 ** 40 },
): FakeDevice {
  const buffers: FakeDevice["buffers"] = [];
  const scopes: { filter: GPUErrorFilter; error: { message: string } | null }[] = [];
  const bytes = () => buffers.reduce((sum, { size, destroyed }) => sum + (destroyed ? 0 : size), 0);
  const device = {
    limits,
    pushErrorScope: (filter: GPUErrorFilter) => void scopes.push({ filter, error: null }),
    popErrorScope: () => Promise.resolve(scopes.pop()!.error),
    createBuffer({ size, usage }: GPUBufferDescriptor): GPUBuffer {
      const failed = bytes() + size > memory;
      if (failed) {
        scopes.findLast(({ filter }) => filter === "out-of-memory")!.error = { message: "Out of memory" };
      }
      const buffer = { size: failed ? 0 : size, usage, destroyed: 0, destroy: () => void buffer.destroyed++ };
      buffers.push(buffer);
      return buffer as unknown as GPUBuffer;
    },
  };
  return { device: device as unknown as GPUDevice, buffers, bytes };
}
