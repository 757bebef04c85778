// Keys and values of softmax attention: arenas of slots by layer, and a table of extents by layer, sequence and head.

import { allocatedBytes, type Gpu, type GpuAllocation } from "../gpu/mod.ts";
import { type CacheRequest, storageBytes } from "../graph/mod.ts";
import { arenaName, KV_CACHE, kvArenas, kvSizes } from "../ops/mod.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import type { StorageType } from "../../wgsl/kernel.ts";
import type { Cache, LayerCacheReport } from "./cache.ts";

/** What a KV cache is made for. */
export interface KvCacheSpec {
  /** The layers' requests, as traced. */
  readonly requests: readonly CacheRequest[];
  /** Slots of each sequence. */
  readonly capacities: readonly number[];
  /** Storage type. */
  readonly dtype: StorageType;
  /** Largest binding in bytes. */
  readonly bindingBytes: number;
}

/** Bytes by layer, and of the tables beside them; what {@linkcode createKvCache} will allocate. */
export function kvCacheBytes(spec: KvCacheSpec): { layers: LayerCacheReport[]; bytes: number } {
  const slots = spec.capacities.reduce((a, b) => a + b, 0);
  const requests = spec.requests.filter((request) => request.kind === KV_CACHE);
  const layers = requests.map((request) => {
    const sizes = kvSizes(request);
    let cacheBytes = 0;
    for (const arena of kvArenas(sizes, slots, spec.dtype, spec.bindingBytes)) {
      cacheBytes += 2 * arenaBytes(arena.heads, slots, sizes.headSize, spec.dtype);
    }
    // The positions of the slots are one table for all layers; the first layer carries it.
    if (request.layer === 0) cacheBytes += allocatedBytes(slots * 4);
    return { index: request.layer, kind: KV_CACHE, capacity: slots, cacheBytes, stateBytes: 0 };
  });
  return { layers, bytes: layers.reduce((sum, layer) => sum + layer.cacheBytes, 0) };
}

function arenaBytes(heads: number, slots: number, headSize: number, dtype: StorageType): number {
  return allocatedBytes(heads * slots * headSize * storageBytes(dtype));
}

/**
 * Allocates the arenas and the table of extents. Bytes of keys, values and slot positions are counted as cache, the table
 * of extents as activations.
 *
 * @throws {GpuMemoryError} when it does not fit; nothing stays allocated then.
 */
export async function createKvCache(gpu: Gpu, spec: KvCacheSpec): Promise<Cache> {
  const { layers, bytes } = kvCacheBytes(spec);
  gpu.memory.require(bytes, "the KV cache");
  const slots = spec.capacities.reduce((a, b) => a + b, 0);
  const held: GpuAllocation[] = [];
  const resources = new Map<string, GPUBuffer>();
  const allocate = async (name: string, size: number, owner = "cache"): Promise<GPUBuffer> => {
    const allocation = await gpu.memory.allocate({
      label: name,
      owner,
      size,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    held.push(allocation);
    resources.set(name, allocation.buffer);
    return allocation.buffer;
  };
  const release = () => {
    for (const allocation of held) allocation.release();
  };
  try {
    const requests = spec.requests.filter((request) => request.kind === KV_CACHE);
    for (const request of requests) {
      const sizes = kvSizes(request);
      for (const [i, arena] of kvArenas(sizes, slots, spec.dtype, spec.bindingBytes).entries()) {
        const size = arenaBytes(arena.heads, slots, sizes.headSize, spec.dtype);
        await allocate(arenaName(request.layer, "keys", i), size);
        await allocate(arenaName(request.layer, "values", i), size);
      }
    }
    if (requests.length) await allocate("slotPositions", slots * 4);
    const table = extentTable(spec);
    const extents = await allocate("extents", table.byteLength, "activations");
    const reset = () => gpu.device.queue.writeBuffer(extents, 0, table);
    reset();
    return {
      bytes,
      layers,
      resources,
      mutable: [{ buffer: extents, offset: 0, size: table.byteLength }],
      reset,
      copyFrom(other: Cache, length: number): void {
        if (!requests.length) return;
        const room = Math.min(slots, other.layers[requests[0].layer].capacity);
        if (length > room) {
          throw new RangeError(
            `Cannot copy ${length} slots of a KV cache: the smaller of the two has ${room}`,
          );
        }
        // Arenas may be split otherwise there; heads are found by their number.
        const encoder = gpu.device.createCommandEncoder();
        for (const request of requests) {
          const sizes = kvSizes(request);
          const slotBytes = sizes.headSize * storageBytes(spec.dtype);
          const theirs = headPlaces(spec, request, other.layers[request.layer].capacity);
          const ours = headPlaces(spec, request, slots);
          for (const part of ["keys", "values"] as const) {
            ours.forEach((place, head) => {
              const from = theirs[head];
              encoder.copyBufferToBuffer(
                other.resources.get(arenaName(request.layer, part, from.arena))!,
                from.slot * slotBytes,
                resources.get(arenaName(request.layer, part, place.arena))!,
                place.slot * slotBytes,
                length * slotBytes,
              );
            });
          }
        }
        const positions = "slotPositions";
        encoder.copyBufferToBuffer(
          other.resources.get(positions)!,
          0,
          resources.get(positions)!,
          0,
          length * 4,
        );
        gpu.device.queue.submit([encoder.finish()]);
        const lengths = table.slice();
        for (
          let at = 0;
          at < requests.length * requests[0].sizes.kvHeads * EXTENT_WORDS;
          at += EXTENT_WORDS
        ) {
          lengths[at + 2] = lengths[at + 3] = length;
        }
        gpu.device.queue.writeBuffer(extents, 0, lengths);
      },
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** Arena and first slot of every KV head of a layer, when there is one sequence. */
function headPlaces(
  spec: KvCacheSpec,
  request: CacheRequest,
  slots: number,
): { arena: number; slot: number }[] {
  return kvArenas(kvSizes(request), slots, spec.dtype, spec.bindingBytes).flatMap((arena, index) =>
    Array.from({ length: arena.heads }, (_, i) => ({ arena: index, slot: i * slots }))
  );
}

/** Extents of empty sequences side by side in every arena; positions are shared by all layers and heads. */
function extentTable(spec: KvCacheSpec): Uint32Array<ArrayBuffer> {
  const requests = spec.requests.filter((request) => request.kind === KV_CACHE);
  const sequences = spec.capacities.length;
  const slots = spec.capacities.reduce((a, b) => a + b, 0);
  const kvHeads = requests[0]?.sizes.kvHeads ?? 0;
  const table = new Uint32Array(Math.max(4, requests.length * sequences * kvHeads * EXTENT_WORDS));
  for (const request of requests) {
    for (const arena of kvArenas(kvSizes(request), slots, spec.dtype, spec.bindingBytes)) {
      let first = 0;
      spec.capacities.forEach((capacity, sequence) => {
        for (let i = 0; i < arena.heads; i++) {
          const head = arena.firstHead + i;
          const at = ((request.layer * sequences + sequence) * kvHeads + head) * EXTENT_WORDS;
          table.set([i * slots + first, capacity, 0, 0, first], at);
        }
        first += capacity;
      });
    }
  }
  return table;
}
