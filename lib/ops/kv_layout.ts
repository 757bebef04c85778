// How the keys and values of a layer are laid out in arenas: pure arithmetic shared by kernels' lowering and the cache.

import type { CacheRequest, Target } from "../graph/mod.ts";
import { storageBytes } from "../graph/mod.ts";
import type { StorageType } from "../../wgsl/kernel.ts";

/** Some KV heads of a layer whose slots stand in one arena, [heads][slots][headSize]. */
export interface Arena {
  /** First KV head. */
  readonly firstHead: number;
  /** Number of KV heads. */
  readonly heads: number;
}

/** Sizes of a layer's keys and values. */
export interface KvSizes {
  /** KV heads. */
  readonly kvHeads: number;
  /** Components of a head. */
  readonly headSize: number;
}

/** Kind of the cache that keeps keys and values. */
export const KV_CACHE = "kv";

/** Sizes of a KV cache request. */
export function kvSizes(request: CacheRequest): KvSizes {
  return { kvHeads: request.sizes.kvHeads, headSize: request.sizes.headSize };
}

/** Whether every KV head of a layer keeps tokens of its own. */
export function ownPositions(request: CacheRequest): boolean {
  return request.sizes.ownPositions === 1;
}

/** Sinks of a layer whose first keys are saved, because they are rotated anew. */
export function savedSinks(request: CacheRequest): number {
  return request.sizes.savedSinks ?? 0;
}

/** Resource name of the saved keys of a layer's sinks. */
export function sinkKeysName(layer: number): string {
  return `sinkKeys.${layer}`;
}

/**
 * Splits a layer's KV heads into arenas that fit a binding.
 *
 * @throws {RangeError} when the slots of a single head are over the limit.
 */
export function kvArenas(sizes: KvSizes, slots: number, dtype: StorageType, bindingBytes: number): Arena[] {
  const headBytes = slots * sizes.headSize * storageBytes(dtype);
  if (headBytes > bindingBytes) {
    throw new RangeError(
      `A KV cache of ${slots} slots takes ${headBytes} bytes a head, over this device's binding limit of ` +
        `${bindingBytes}: use a shorter context, fewer sequences at once or f16`,
    );
  }
  const most = headBytes === 0 ? sizes.kvHeads : Math.floor(bindingBytes / headBytes);
  const heads = Math.min(sizes.kvHeads, most);
  const arenas: Arena[] = [];
  for (let firstHead = 0; firstHead < sizes.kvHeads; firstHead += heads) {
    arenas.push({ firstHead, heads: Math.min(heads, sizes.kvHeads - firstHead) });
  }
  return arenas;
}

/** Where keys and values stand while they are attended to: a layer's cache, or what stages them before a choice. */
export interface KeyValueStore extends KvSizes {
  /** Name of its arenas, and key of its slots in {@linkcode Target.slots}. */
  readonly name: string;
  /** Its layer in the table of extents. */
  readonly layer: number;
  /** Resource name of its table of extents. */
  readonly extents: string;
  /** Resource name of its slots' positions. */
  readonly positions: string;
}

/** The cache of a layer. */
export function cacheStore(request: CacheRequest): KeyValueStore {
  return {
    ...kvSizes(request),
    name: `kv.${request.layer}`,
    layer: request.layer,
    extents: "extents",
    positions: "slotPositions",
  };
}

/** The arenas of a store in a plan. */
export function arenasOf(store: KeyValueStore, target: Target): Arena[] {
  return kvArenas(store, target.slots[store.name] ?? 0, target.cacheType, target.bindingBytes);
}

/** Resource name of an arena's keys or values. */
export function arenaName(store: string, part: "keys" | "values", arena: number): string {
  return `${store}.${part}.${arena}`;
}
