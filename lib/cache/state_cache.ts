// Recurrent states: one buffer a layer, of a size that no length changes.

import { allocatedBytes, formatBytes, type Gpu, type GpuAllocation } from "../gpu/mod.ts";
import type { CacheRequest } from "../graph/mod.ts";
import { STATE_CACHE, stateName, stateWords } from "../ops/mod.ts";
import type { BufferRange } from "./cache.ts";
import type { LayerCacheReport } from "./layer_report.ts";

/** What states are made for. */
export interface StateCacheSpec {
  /** The layers' requests, as traced; those of other kinds are left out. */
  readonly requests: readonly CacheRequest[];
  /** Sequences. */
  readonly sequences: number;
  /** Largest binding in bytes. */
  readonly bindingBytes: number;
}

/** The states of a run. */
export interface StateCache {
  /** Buffers by resource name. */
  readonly resources: ReadonlyMap<string, GPUBuffer>;
  /** All of them: every step changes them in place. */
  readonly mutable: readonly BufferRange[];
  /** Forgets all sequences. */
  reset(): void;
  /** Takes over the states of sequence 0. */
  copyFrom(resources: ReadonlyMap<string, GPUBuffer>): void;
  /** Frees the buffers. */
  release(): void;
}

/** Bytes of the states, by layer. */
export function stateLayers({ requests, sequences }: StateCacheSpec): LayerCacheReport[] {
  return requests.filter(({ kind }) => kind === STATE_CACHE).map((request) => ({
    index: request.layer,
    kind: STATE_CACHE,
    capacity: 0,
    cacheBytes: 0,
    stateBytes: allocatedBytes(sequences * stateWords(request) * 4),
  }));
}

/**
 * Allocates the states, empty.
 *
 * @throws {RangeError} when a layer's is over the binding limit.
 * @throws {GpuMemoryError} when it does not fit; nothing stays allocated then.
 */
export async function createStateCache(gpu: Gpu, spec: StateCacheSpec): Promise<StateCache> {
  const { sequences, bindingBytes } = spec;
  const held = new Map<string, GpuAllocation>();
  const requests = spec.requests.filter(({ kind }) => kind === STATE_CACHE);
  for (const request of requests) {
    const bytes = stateWords(request) * 4;
    if (sequences * bytes > bindingBytes) {
      throw new RangeError(
        `The states of ${sequences} sequences take ${
          formatBytes(sequences * bytes)
        } a layer, over this device's ` +
          `binding limit of ${formatBytes(bindingBytes)}: use at most ${
            Math.floor(bindingBytes / bytes)
          } at once`,
      );
    }
  }
  const release = () => {
    for (const allocation of held.values()) allocation.release();
  };
  try {
    for (const request of requests) {
      const name = stateName(request.layer);
      held.set(
        name,
        await gpu.memory.allocate({
          label: name,
          owner: "cache",
          size: sequences * stateWords(request) * 4,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        }),
      );
    }
  } catch (error) {
    release();
    throw error;
  }
  const resources = new Map([...held].map(([name, { buffer }]) => [name, buffer]));
  const reset = () => {
    const encoder = gpu.device.createCommandEncoder();
    for (const buffer of resources.values()) encoder.clearBuffer(buffer);
    gpu.device.queue.submit([encoder.finish()]);
  };
  // Buffers may come from a pool.
  if (resources.size > 0) reset();
  return {
    resources,
    mutable: requests.map((request) => ({
      buffer: resources.get(stateName(request.layer))!,
      offset: 0,
      size: sequences * stateWords(request) * 4,
    })),
    reset,
    copyFrom(others): void {
      const encoder = gpu.device.createCommandEncoder();
      for (const request of requests) {
        const name = stateName(request.layer);
        encoder.copyBufferToBuffer(others.get(name)!, 0, resources.get(name)!, 0, stateWords(request) * 4);
      }
      gpu.device.queue.submit([encoder.finish()]);
    },
    release,
  };
}
