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

/** The arenas of a cache request in a plan. */
export function arenasOf(request: CacheRequest, target: Target): Arena[] {
  return kvArenas(kvSizes(request), target.slots, target.cacheType, target.bindingBytes);
}

/** Resource name of an arena's keys or values. */
export function arenaName(layer: number, part: "keys" | "values", arena: number): string {
  return `kv.${layer}.${part}.${arena}`;
}
