/**
 * Layers: pure functions from a value to a value, as plain data. Compose them with {@linkcode pipe} and
 * {@linkcode residual}; the core of {@linkcode attention} is a value you can swap.
 *
 * ```ts ignore
 * import { attention, pipe, residual, rmsNorm, softmaxCore, swiGlu } from "@cairn/cairn/layers";
 *
 * const block = pipe(
 *   residual(pipe(rmsNorm(norm1, 1e-5), attention({ ...shape, weights, core: softmaxCore() }))),
 *   residual(pipe(rmsNorm(norm2, 1e-5), swiGlu(ffn))),
 * );
 * ```
 *
 * @module
 */

export {
  attention,
  type AttentionConfig,
  type AttentionProjection,
  type AttentionShape,
  type AttentionWeights,
  type Core,
  type CoreInput,
  type ExtraProjection,
  isAttention,
  softmaxCore,
} from "./attention.ts";
export { embedding, linear, lmHead } from "./embedding.ts";
export { glu, type GluConfig } from "./glu.ts";
export {
  type AnyLayer,
  type Flow,
  type Hidden,
  hidden,
  type Layer,
  leaf,
  type Logits,
  mapLayers,
  printLayers,
  type TokenIds,
  walkLayers,
} from "./layer.ts";
export { layerNorm, type LayerNormConfig } from "./layer_norm.ts";
export {
  attentionsOf,
  coresOf,
  type LinearizedLayers,
  mapAttentions,
  mapCores,
  type ModelConfig,
  type PipelineModel,
  type Pruning,
} from "./model.ts";
export { parallel } from "./parallel.ts";
export { pipe, residual } from "./pipe.ts";
export { learnedPositions, type LearnedPositionsConfig, sinusoidalPositions } from "./position_embedding.ts";
export { rmsNorm, type RmsNormConfig } from "./rms_norm.ts";
export { rotaryEmbedding, rotaryFrequencies, type RotaryOptions, type RotaryScaling } from "./rotary.ts";
export { swiGlu, type SwiGluWeights } from "./swiglu.ts";
// What custom layers, cores and ops need of the parts below.
export {
  type CacheRequest,
  type Counts,
  type Emit,
  type KeptTokens,
  type OpDefinition,
  type Operand,
  type Operation,
  resource,
  type Rows,
  type StagingArena,
  type Step,
  type StepLimits,
  type StepSequence,
  type StepTable,
  type StorageType,
  type Target,
  type Trace,
  type Turn,
  type Value,
  valueOperand,
  type Weight,
  weightOperand,
  type WeightPart,
  type WeightStore,
  type WeightView,
  whole,
} from "../graph/mod.ts";
export {
  type Binding,
  defineKernel,
  type Grid,
  type Kernel,
  type KernelSource,
  type Parameters,
  type ParameterType,
  read,
  write,
} from "../graph/mod.ts";
export type {
  Activation,
  FeatureMap,
  KeyValueStore,
  KvSizes,
  NucleusLimits,
  Rotary,
  RotaryLayout,
} from "../ops/mod.ts";
/** The ops that layers are made of: each appends to the trace. */
export * as ops from "../ops/mod.ts";
