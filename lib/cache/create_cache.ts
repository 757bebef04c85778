// The cache of a run: keys and values of the layers that keep tokens, states of those that keep a sum of them.

import type { Gpu } from "../gpu/mod.ts";
import { STATE_CACHE } from "../ops/mod.ts";
import type { Cache } from "./cache.ts";
import { createKvCache } from "./kv_cache.ts";
import { kvCacheBytes, type KvCacheSpec } from "./kv_layout.ts";
import type { LayerCacheReport } from "./layer_report.ts";
import { createStateCache, stateLayers } from "./state_cache.ts";

/** Bytes of a cache by attention layer, as traced, and of the tables beside it. */
export function cacheBytes(
  spec: KvCacheSpec,
): { layers: LayerCacheReport[]; bytes: number; tableBytes: number } {
  const kv = kvCacheBytes(spec);
  const states = stateLayers(stateSpec(spec));
  const layers = new Map<number, LayerCacheReport>();
  spec.requests.forEach(({ kind, layer, owner }, at) => {
    const index = owner ?? at;
    const own = { ...(kind === STATE_CACHE ? states[layer] : kv.layers[layer]), index };
    const other = layers.get(index);
    layers.set(
      index,
      other === undefined ? own : {
        index,
        // What keeps tokens tells more than the sums beside it.
        kind: other.kind === STATE_CACHE ? own.kind : other.kind,
        capacity: other.capacity + own.capacity,
        cacheBytes: other.cacheBytes + own.cacheBytes,
        stateBytes: other.stateBytes + own.stateBytes,
      },
    );
  });
  return {
    layers: [...layers.values()],
    bytes: kv.bytes + states.reduce((sum, { stateBytes }) => sum + stateBytes, 0),
    tableBytes: kv.tableBytes,
  };
}

/**
 * Allocates the cache of a run.
 *
 * @throws {GpuMemoryError} when it does not fit; nothing stays allocated then.
 * @throws {RangeError} when a part of it is over the binding limit.
 */
export async function createCache(gpu: Gpu, spec: KvCacheSpec): Promise<Cache> {
  const { layers, bytes, tableBytes } = cacheBytes(spec);
  gpu.memory.require(bytes + tableBytes, "the cache");
  const kv = await createKvCache(gpu, spec);
  if (!layers.some(({ kind }) => kind === STATE_CACHE)) return { ...kv, layers };
  let states;
  try {
    states = await createStateCache(gpu, stateSpec(spec));
  } catch (error) {
    kv.release();
    throw error;
  }
  return {
    ...kv,
    bytes,
    layers,
    resources: new Map([...kv.resources, ...states.resources]),
    mutable: [...kv.mutable, ...states.mutable],
    reset(): void {
      kv.reset();
      states.reset();
    },
    async copyFrom(other: Cache): Promise<void> {
      await kv.copyFrom(other);
      states.copyFrom(other.resources);
    },
    release(): void {
      kv.release();
      states.release();
    },
  };
}

function stateSpec({ requests, capacities, bindingBytes }: KvCacheSpec) {
  return { requests, sequences: capacities.length, bindingBytes };
}
