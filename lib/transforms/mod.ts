/**
 * Transforms: functions from a model to a model that shares its weights. `withKvPruning` makes softmax layers keep and
 * compute fewer tokens, by a policy that is a value; `withLinearAttention` puts cores of linear attention in their place.
 *
 * ```ts ignore
 * import { loadModel, openGpu } from "@cairn/cairn";
 * import { pyramidInfer, withKvPruning } from "@cairn/cairn/transforms";
 *
 * using gpu = await openGpu();
 * using model = await loadModel(gpu, "examples/models/novel-llama");
 * const lean = withKvPruning(pyramidInfer({ keep: 0.45 }))(model);
 * ```
 *
 * @module
 */

export { compose, type Transform } from "./compose.ts";
export { type NamedOptions, type OptionType, parseNamedOptions } from "./named_options.ts";
export { nearestName } from "./nearest_name.ts";
export { cosFormer, type CosFormerOptions } from "./linear_attention/cos_former.ts";
export { alibiDecays, alibiSlopes, paperDecays, retentionDecays } from "./linear_attention/decays.ts";
export {
  deltaNet,
  type DeltaNetOptions,
  gatedDeltaNet,
  type GatedDeltaNetOptions,
} from "./linear_attention/delta_net.ts";
export { diagAttention, type DiagAttentionOptions } from "./linear_attention/diag_attention.ts";
export { gla, type GlaOptions } from "./linear_attention/gla.ts";
export { hybrid, type HybridOptions } from "./linear_attention/hybrid.ts";
export {
  lightningAttention,
  type LightningAttentionOptions,
} from "./linear_attention/lightning_attention.ts";
export { linearAttention, type LinearAttentionOptions } from "./linear_attention/linear_core.ts";
export { mamba2, type Mamba2Options } from "./linear_attention/mamba2.ts";
export { normAttention, type NormAttentionOptions } from "./linear_attention/norm_attention.ts";
export type { OutputNorm, OutputNormKind } from "./linear_attention/output_norm.ts";
export { type ParsedLinearAttention, parseLinearAttention } from "./linear_attention/parse_linear.ts";
export { performer, type PerformerOptions } from "./linear_attention/performer.ts";
export { LINEAR_CORES, type LinearCoreEntry } from "./linear_attention/registry.ts";
export { retention, type RetentionOptions } from "./linear_attention/retention.ts";
export type { Rotation, RotationOption } from "./linear_attention/rotation.ts";
export {
  type CoreChoice,
  type ExtraProjections,
  withLinearAttention,
  type WithLinearAttentionOptions,
} from "./linear_attention/with_linear_attention.ts";
export { adaKv, type AdaKvOptions } from "./kv_pruning/ada_kv.ts";
export { composePolicies } from "./kv_pruning/compose_policies.ts";
export { expectedAttention, type ExpectedAttentionOptions } from "./kv_pruning/expected_attention.ts";
export { fastKv, type FastKvOptions } from "./kv_pruning/fast_kv.ts";
export { h2o, type H2oOptions } from "./kv_pruning/h2o.ts";
export { keyDiff } from "./kv_pruning/key_diff.ts";
export { type KeyPolicyOptions } from "./kv_pruning/key_policy.ts";
export { knorm } from "./kv_pruning/knorm.ts";
export { parseKvPolicy } from "./kv_pruning/parse_policy.ts";
export { perLayer } from "./kv_pruning/per_layer.ts";
export type {
  BlockRule,
  EvictRule,
  KvPolicy,
  LayerRule,
  LayerSchedule,
  NucleusRule,
  PolicyShape,
  PrefillRule,
  Schedule,
  ScoreInput,
  Scorer,
} from "./kv_pruning/policy.ts";
export { pyramidInfer } from "./kv_pruning/pyramid_infer.ts";
export {
  type DecayStrategy,
  type PyramidInferOptions,
  type PyramidInferPreset,
} from "./kv_pruning/pyramid_infer_options.ts";
export { pyramidKv, type PyramidKvOptions } from "./kv_pruning/pyramid_kv.ts";
export { randomPolicy, type RandomPolicyOptions } from "./kv_pruning/random_policy.ts";
export { KV_POLICIES, type PolicyEntry, type PolicyOptionType } from "./kv_pruning/registry.ts";
export {
  attentionSums,
  hashedPositions,
  keyDifferences,
  keyNorms,
  pooledAttention,
  type Pooling,
  windowAttention,
} from "./kv_pruning/scorers.ts";
export type { SlotBudget } from "./kv_pruning/slot_budget.ts";
export { type Evicts, type SlotPlan, slotSchedule } from "./kv_pruning/slot_schedule.ts";
export { snapKv, type SnapKvOptions } from "./kv_pruning/snap_kv.ts";
export { streamingLlm, type StreamingLlmOptions } from "./kv_pruning/streaming_llm.ts";
export { tova, type TovaOptions } from "./kv_pruning/tova.ts";
export { withKvPruning } from "./kv_pruning/with_kv_pruning.ts";
export type {
  AttentionConfig,
  AttentionShape,
  Core,
  ExtraProjection,
  FeatureMap,
  LinearizedLayers,
  PipelineModel,
  Trace,
  Turn,
  Value,
  Weight,
  WeightView,
} from "../layers/mod.ts";
