// Buffers with byte accounting: a ceiling checked before allocation, a pool of freed buffers, and an out-of-memory
// scope around every allocation, because WebGPU does not tell how much memory a card has.

import { formatBytes, GpuMemoryError } from "./errors.ts";

/** What is asked of {@linkcode Memory.allocate}. */
export interface BufferRequest {
  /** What the buffer is for; shown in errors and in {@linkcode Memory.holders}. */
  readonly label: string;
  /** Who holds it: `weights`, `cache`, `activations` … */
  readonly owner: string;
  /** Size in bytes; rounded up to a multiple of 16. */
  readonly size: number;
  /** WebGPU usage flags. */
  readonly usage: number;
}

/** A buffer that is accounted for until it is released. */
export interface GpuAllocation extends BufferRequest {
  /** The WebGPU buffer. */
  readonly buffer: GPUBuffer;
  /** Gives the bytes back; calling it twice does nothing. */
  release(): void;
}

/** Byte accounting and allocation of one device. */
export interface Memory {
  /** Bytes in use now. */
  readonly bytes: number;
  /** Highest value of `bytes` since {@linkcode Memory.resetPeak}. */
  readonly peak: number;
  /** Bytes of freed buffers kept for reuse; they count against the ceiling only until they are needed. */
  readonly pooled: number;
  /** The caller's ceiling in bytes, or undefined. */
  readonly ceiling: number | undefined;
  /** Bytes in use by owner. */
  holders(): Record<string, number>;
  /** Starts a new peak at the bytes in use. */
  resetPeak(): void;
  /**
   * Allocates a buffer. Its content is zero or left over from an earlier user.
   *
   * @throws {GpuMemoryError} over the ceiling, over `maxBufferSize`, or when the device runs out of memory.
   * @throws {GpuLostError} when the device is lost.
   */
  allocate(request: BufferRequest): Promise<GpuAllocation>;
  /** Throws unless `bytes` more fit under the ceiling; for checks before work begins. */
  require(bytes: number, what: string): void;
  /** Destroys pooled buffers. */
  trim(): void;
  /** Destroys every buffer. */
  dispose(): void;
}

function gone(request: BufferRequest): GpuMemoryError {
  return new GpuMemoryError(
    `Cannot allocate ${request.label}: the GPU device was disposed of. Open it again with openGpu`,
  );
}

/** Bytes that a buffer of `size` bytes takes: a multiple of 16, and never none. */
export function allocatedBytes(size: number): number {
  return Math.max(16, Math.ceil(size / 16) * 16);
}

/** Freed bytes kept for reuse. */
const POOL_BYTES = 256 * 2 ** 20;

/** Makes the accounting of a device; `check` throws when the device is lost. */
export function createMemory(device: GPUDevice, ceiling: number | undefined, check: () => void): Memory {
  const pool = new Map<string, GPUBuffer[]>();
  const live = new Set<GPUBuffer>();
  const owners = new Map<string, number>();
  let bytes = 0;
  let peak = 0;
  let pooled = 0;
  let disposed = false;

  const held = () => {
    const list = [...owners].filter(([, n]) => n > 0).map(([owner, n]) => `${owner} ${formatBytes(n)}`);
    return list.length ? `held now: ${list.join(", ")}` : "nothing is held";
  };
  const trim = () => {
    for (const buffer of [...pool.values()].flat()) {
      live.delete(buffer);
      buffer.destroy();
    }
    pool.clear();
    pooled = 0;
  };
  const requireBytes = (more: number, what: string) => {
    if (ceiling !== undefined && bytes + more > ceiling) {
      throw new GpuMemoryError(
        `Cannot allocate ${formatBytes(more)} for ${what}: the memory ceiling is ${
          formatBytes(ceiling)
        } and ` +
          `${held()}. Raise the ceiling (memory), shorten the prompt or maxTokens, or use a smaller model`,
      );
    }
  };
  /** The buffer, or why there is none. */
  const create = async (request: BufferRequest, size: number): Promise<GPUBuffer | string> => {
    device.pushErrorScope("validation");
    device.pushErrorScope("out-of-memory");
    let buffer: GPUBuffer | undefined;
    let thrown: unknown;
    try {
      buffer = device.createBuffer({ label: request.label, size, usage: request.usage });
    } catch (error) {
      thrown = error;
    }
    const scopes = [device.popErrorScope(), device.popErrorScope()];
    const error = (await scopes[0]) ?? (await scopes[1]) ?? thrown;
    if (error || !buffer) {
      buffer?.destroy();
      return error && typeof error === "object" && "message" in error
        ? String(error.message).split("\n")[0]
        : "no reason given";
    }
    return buffer;
  };

  return {
    get bytes() {
      return bytes;
    },
    get peak() {
      return peak;
    },
    get pooled() {
      return pooled;
    },
    ceiling,
    holders: () => Object.fromEntries([...owners].filter(([, n]) => n > 0)),
    resetPeak: () => void (peak = bytes),
    require: requireBytes,
    trim,
    async allocate(request: BufferRequest): Promise<GpuAllocation> {
      if (!Number.isSafeInteger(request.size) || request.size < 0) {
        throw new RangeError(`Cannot allocate ${request.label}: size is ${request.size} bytes`);
      }
      if (disposed) throw gone(request);
      check();
      const size = allocatedBytes(request.size);
      const limit = device.limits.maxBufferSize;
      if (size > limit) {
        throw new GpuMemoryError(
          `Cannot allocate ${
            formatBytes(size)
          } for ${request.label}: this device allows buffers of at most ` +
            `${formatBytes(limit)}`,
        );
      }
      requireBytes(size, request.label);
      const key = `${size}:${request.usage}`;
      let buffer = pool.get(key)?.pop();
      if (buffer) pooled -= size;
      else if (ceiling !== undefined && bytes + pooled + size > ceiling) trim();
      // Counted before the wait, so that allocations made side by side see each other.
      bytes += size;
      peak = Math.max(peak, bytes);
      owners.set(request.owner, (owners.get(request.owner) ?? 0) + size);
      const forget = () => {
        bytes -= size;
        owners.set(request.owner, owners.get(request.owner)! - size);
      };
      if (!buffer) {
        let made = await create(request, size);
        if (typeof made === "string" && pooled > 0) {
          trim();
          made = await create(request, size);
        }
        try {
          // Either may have come about meanwhile.
          if (disposed) throw gone(request);
          check();
        } catch (error) {
          forget();
          if (typeof made !== "string") made.destroy();
          throw error;
        }
        if (typeof made === "string") {
          forget();
          throw new GpuMemoryError(
            `The device could not allocate ${formatBytes(size)} for ${request.label} (${made}); ${held()}. ` +
              "Free memory on the device, set a ceiling (memory), or use a smaller model, batch or context",
          );
        }
        buffer = made;
        live.add(buffer);
      }
      const allocated = buffer;
      let released = false;
      return {
        ...request,
        size,
        buffer: allocated,
        release: () => {
          if (released) return;
          released = true;
          forget();
          if (disposed || pooled + size > POOL_BYTES) {
            live.delete(allocated);
            allocated.destroy();
            return;
          }
          pooled += size;
          const list = pool.get(key);
          if (list) list.push(allocated);
          else pool.set(key, [allocated]);
        },
      };
    },
    dispose() {
      disposed = true;
      for (const buffer of live) buffer.destroy();
      live.clear();
      pool.clear();
      pooled = 0;
    },
  };
}
