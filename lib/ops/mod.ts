// The ops that layers are made of. Each checks its arguments in words, knows its shape and picks its kernels.

export { attendTiles, type AttendTilesOptions } from "./attend_tiles.ts";
export { add } from "./add.ts";
export { addSkip, type AddSkipOptions } from "./add_skip.ts";
export { deltaRule, type DeltaRuleInputs, deltaStateWords } from "./delta_rule.ts";
export {
  diagAttention,
  type DiagAttentionOptions,
  type DiagScore,
  diagStateWords,
} from "./diag_attention.ts";
export { constantTable } from "./constant_table.ts";
export { embedding } from "./embedding.ts";
export { compressBlock, evictSlot, scoreSlots } from "./evict_tokens.ts";
export { expectedAttention, type ExpectedAttentionOptions } from "./expected_attention.ts";
export { featureMap, type FeatureMapOptions, type FeatureRotation } from "./feature_map.ts";
export { FEATURE_MAPS, type FeatureMap } from "../../wgsl/feature_map.ts";
export { angleTurns } from "../../wgsl/turns.ts";
export { fusions } from "./fuse.ts";
export { gate, type GateKind, type GateOptions, scaleHeads } from "./gate.ts";
export {
  gatedLinearAttention,
  type GatedLinearAttentionInputs,
  glaStateWords,
} from "./gated_linear_attention.ts";
export { type Activation, glu, multiply } from "./glu.ts";
export {
  hybridAttention,
  type HybridAttentionOptions,
  type HybridInputs,
  hybridStateWords,
} from "./hybrid_attention.ts";
export { type HybridSizes } from "../../wgsl/hybrid_layout.ts";
export { type StateHeads } from "./state_heads.ts";
export { alignRows, gatherLogitRows, LEFT_LOGIT_ROWS } from "./gather_rows.ts";
export { keyValueCache, type KeyValueCacheOptions } from "./key_value_cache.ts";
export {
  type RecurrentState,
  recurrentState,
  STATE_CACHE,
  stateName,
  stateWords,
} from "./recurrent_state.ts";
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
export {
  linearAttention,
  type LinearAttentionInputs,
  type LinearAttentionSpec,
  linearStateWords,
} from "./linear_attention.ts";
export {
  denominatorStateWords,
  divideHeads,
  type DivideHeadsOptions,
  linearDenominator,
  type LinearDenominatorSpec,
} from "./linear_denominator.ts";
export { normRows, type NormRowsOptions } from "./norm_rows.ts";
export {
  evictNucleus,
  narrowSelections,
  narrowTiles,
  nucleusBudget,
  type NucleusLimits,
  nucleusTable,
} from "./nucleus.ts";
export { performerFeatures, type PerformerFeaturesOptions } from "./performer_features.ts";
export { positionEmbedding, type PositionTable, sinusoidalFrequencies } from "./position_embedding.ts";
export { reservedSlots } from "./reserved_slots.ts";
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
