// The ops that layers are made of. Each checks its arguments in words, knows its shape and picks its kernels.

export { attendTiles, type AttendTilesOptions } from "./attend_tiles.ts";
export { add } from "./add.ts";
export { embedding } from "./embedding.ts";
export { compressBlock, evictSlot, reservedSlots, scoreSlots } from "./evict_tokens.ts";
export { expectedAttention, type ExpectedAttentionOptions } from "./expected_attention.ts";
export { fusions } from "./fuse.ts";
export { alignRows, gatherLogitRows, LEFT_LOGIT_ROWS } from "./gather_rows.ts";
export { keyValueCache, type KeyValueCacheOptions } from "./key_value_cache.ts";
export {
  type Arena,
  arenaName,
  cacheStore,
  type KeyValueStore,
  KV_CACHE,
  kvArenas,
  type KvSizes,
  kvSizes,
  ownPositions,
  savedSinks,
  sinkKeysName,
} from "./kv_layout.ts";
export { attendLastRows } from "./last_rows.ts";
export { keyScores, type KeyScoresOptions, randomScores, type RandomScoresOptions } from "./key_scores.ts";
export { linear } from "./linear.ts";
export { rmsNorm } from "./rms_norm.ts";
export { type Rotary, type RotaryLayout, rotaryTable } from "./rotary.ts";
export { FINE_POSITIONS } from "../../wgsl/rope_store.ts";
export { sample, type SampleOptions } from "./sample.ts";
export { score } from "./score.ts";
export {
  columnScores,
  type PickedRows,
  pickedRows,
  pickRows,
  poolScores,
  selectSlots,
  spreadBudget,
  storeScores,
} from "./select_rows.ts";
export { type RecordedAttention, recordedAttention, softmaxAttention } from "./softmax_attention.ts";
export { commit, stage, type StagedLengths } from "./staging.ts";
export {
  type CompressedTurn,
  pickedRowTables,
  type RowRange,
  type Selection,
  selectionTable,
  tileTable,
  turnTables,
} from "./step_tables.ts";
export { saveSinkKeys, turnSinkKeys } from "./sink_keys.ts";
export { storeKeyValues } from "./store_key_values.ts";
export { swiglu } from "./swiglu.ts";
