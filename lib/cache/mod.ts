// Caches: what a core keeps between steps, by one protocol.

export { type BufferRange, type Cache, type LayerCacheReport } from "./cache.ts";
export { createKvCache, kvCacheBytes, type KvCacheSpec } from "./kv_cache.ts";
