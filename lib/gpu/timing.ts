// Timing by timestamps, per kernel, on request: every dispatch then stands in a pass of its own.

import type { Gpu } from "./open.ts";
import { readBuffer } from "./readback.ts";

/** Time of one kernel over all its dispatches. */
export interface KernelTime {
  /** Kernel name. */
  readonly name: string;
  /** Number of dispatches. */
  readonly count: number;
  /** Sum in milliseconds. */
  readonly milliseconds: number;
}

/** Collects timestamps of dispatches. */
export interface Timer {
  /** Timestamp writes for the next pass, noted under the kernel's name; undefined when there is no room left. */
  next(name: string): GPUComputePassTimestampWrites | undefined;
  /** Records the copy of what was collected; call once, after the last pass of the encoder. */
  resolve(encoder: GPUCommandEncoder): void;
  /** Reads the times, after the submit; by kernel, longest first. */
  read(): Promise<KernelTime[]>;
  /** Frees the query sets. */
  dispose(): void;
}

/** Dispatches whose two timestamps fit one query set: WebGPU allows 4096 queries in each. */
const SET_DISPATCHES = 2048;

/**
 * Makes a timer for up to `capacity` dispatches of one submit.
 *
 * @throws {Error} when the device has no timestamps.
 */
export async function createTimer(gpu: Gpu, capacity = 2048): Promise<Timer> {
  if (!gpu.features.timestamps) {
    throw new Error("This device has no timestamp-query: kernels cannot be timed");
  }
  const sets = Array.from(
    { length: Math.ceil(capacity / SET_DISPATCHES) },
    (_, i) =>
      gpu.device.createQuerySet({
        type: "timestamp",
        count: 2 * Math.min(SET_DISPATCHES, capacity - i * SET_DISPATCHES),
      }),
  );
  const target = await gpu.memory.allocate({
    label: "timestamps",
    owner: "timing",
    size: capacity * 16,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  });
  const names: string[] = [];
  return {
    next(name: string): GPUComputePassTimestampWrites | undefined {
      if (names.length >= capacity) return undefined;
      const index = names.push(name) - 1;
      const querySet = sets[Math.floor(index / SET_DISPATCHES)];
      const first = index % SET_DISPATCHES * 2;
      return { querySet, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 };
    },
    resolve(encoder: GPUCommandEncoder): void {
      sets.forEach((set, i) => {
        const first = i * SET_DISPATCHES;
        const count = Math.min(SET_DISPATCHES, names.length - first);
        if (count > 0) encoder.resolveQuerySet(set, 0, count * 2, target.buffer, first * 16);
      });
    },
    async read(): Promise<KernelTime[]> {
      if (!names.length) return [];
      const stamps = new BigUint64Array(await readBuffer(gpu, target.buffer, 0, names.length * 16));
      const times = new Map<string, { count: number; milliseconds: number }>();
      names.forEach((name, i) => {
        const entry = times.get(name) ?? { count: 0, milliseconds: 0 };
        entry.count++;
        entry.milliseconds += Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6;
        times.set(name, entry);
      });
      names.length = 0;
      return [...times].map(([name, time]) => ({ name, ...time }))
        .sort((a, b) => b.milliseconds - a.milliseconds);
    },
    dispose(): void {
      for (const set of sets) set.destroy();
      target.release();
    },
  };
}
