// Tracing, lowering, memory planning and replay. Knows operations and kernels, not what a layer means.

export {
  type Bindings,
  bindPlan,
  type BoundPlan,
  compilePlan,
  createWorkspace,
  type Workspace,
} from "./bound_plan.ts";
export {
  denseOperand,
  type Dispatch,
  type Operand,
  resource,
  valueOperand,
  weightOperand,
} from "./dispatch.ts";
export { type MemoryPlan, planMemory } from "./memory_plan.ts";
export { kernelCounts, lower, type Plan, printPlan, type Rewrite } from "./plan.ts";
export {
  type CacheRequest,
  createTrace,
  type Emit,
  type KeptTokens,
  type OpDefinition,
  type Operation,
  type Target,
  type Trace,
} from "./trace.ts";
export { sliceOf, sliceRows } from "./row_slices.ts";
export {
  type StagingArena,
  stagingSlots,
  type Step,
  type StepLimits,
  type StepSequence,
  type StepTable,
  type Turn,
} from "./step.ts";
export { type Counts, isColumnRange, type Placement, placementOf, type Rows, type Value } from "./value.ts";
export {
  storageBytes,
  type Weight,
  weightBytes,
  type WeightPart,
  weightParts,
  type WeightView,
  whole,
} from "./weight.ts";
export { createWeightStore, FREED, type WeightStore } from "./weight_store.ts";
export {
  type Binding,
  defineKernel,
  type Grid,
  type Kernel,
  type KernelSource,
  type Parameters,
  type ParameterType,
  read,
  type StorageType,
  write,
} from "../../wgsl/kernel.ts";
