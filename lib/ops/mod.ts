// The ops that layers are made of. Each checks its arguments in words, knows its shape and picks its kernels.

export { add } from "./add.ts";
export { embedding } from "./embedding.ts";
export { fusions } from "./fuse.ts";
export { alignRows, gatherLogitRows } from "./gather_rows.ts";
export { type Arena, arenaName, KV_CACHE, kvArenas, type KvSizes, kvSizes } from "./kv_layout.ts";
export { linear } from "./linear.ts";
export { rmsNorm } from "./rms_norm.ts";
export { type Rotary, type RotaryLayout, rotaryTable } from "./rotary.ts";
export { FINE_POSITIONS } from "../../wgsl/rope_store.ts";
export { sample, type SampleOptions } from "./sample.ts";
export { score } from "./score.ts";
export { softmaxAttention } from "./softmax_attention.ts";
export { keyValueCache, storeKeyValues } from "./store_key_values.ts";
export { swiglu } from "./swiglu.ts";
