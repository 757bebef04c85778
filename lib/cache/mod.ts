// Caches: what a core keeps between steps, by one protocol.

export { type BufferRange, type Cache, type LayerTokens } from "./cache.ts";
export { cacheBytes, createCache } from "./create_cache.ts";
export { createKvCache } from "./kv_cache.ts";
export { isRagged, kvCacheBytes, type KvCacheSpec, type KvLayout, kvLayout } from "./kv_layout.ts";
export { type LayerCacheReport } from "./layer_report.ts";
export { createStateCache, type StateCache, type StateCacheSpec } from "./state_cache.ts";
