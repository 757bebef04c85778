// Plans of a run: one for prefill and one for decode, keyed by phase and row bucket, never by a prompt's length.

import type { Gpu, GpuFeatures } from "../gpu/mod.ts";
import { type KvCacheSpec, kvLayout } from "../cache/mod.ts";
import {
  createTrace,
  lower,
  type Plan,
  type Rows,
  stagingSlots,
  type StepLimits,
  type Target,
  type Turn,
} from "../graph/mod.ts";
import { coresOf, type PipelineModel } from "../layers/mod.ts";
import { fusions, kvArenas, reservedSlots, sample, type SampleOptions, score } from "../ops/mod.ts";
import { MAX_RUN_AHEAD } from "./options.ts";

/** What plans need to know of a device. */
export interface DeviceTraits {
  /** Granted features. */
  readonly features: GpuFeatures;
  /** Largest storage binding in bytes. */
  readonly bindingBytes: number;
  /** Workgroup memory in bytes. */
  readonly workgroupBytes: number;
}

/** Traits of an open device. */
export function deviceTraits(gpu: Gpu): DeviceTraits {
  return {
    features: gpu.features,
    bindingBytes: Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize),
    workgroupBytes: gpu.limits.maxComputeWorkgroupStorageSize,
  };
}

/** What a run is for. */
export type Purpose =
  /** Sample the next token of every sequence. */
  | { readonly type: "sample"; readonly sampling: SampleOptions }
  /** Logits, and the last hidden states if asked for. */
  | { readonly type: "logits"; readonly hidden: boolean }
  /** Negative log-likelihood of given tokens. */
  | { readonly type: "score" };

/** Sizes of a run. */
export interface RunSizes {
  /** Longest that each sequence may become. */
  readonly capacities: readonly number[];
  /** The turn of each sequence. */
  readonly turns: readonly Turn[];
  /** Whether steps may have to be taken back after the run. */
  readonly rewindable: boolean;
  /** Most rows of a prefill step. */
  readonly prefillRows: number;
  /** Most rows whose logits are computed at once. */
  readonly logitRows: number;
  /** One kernel family whatever the row count. */
  readonly batchInvariant: boolean;
}

/** Rows up to which matrix-vector kernels are used. */
const THIN_ROWS = 8;

/** Row buckets of prefill. */
export const PREFILL_ROWS: readonly number[] = [32, 128, 512];

/** Rows that prompts which must be fed whole may have together, though each alone may have more. */
const WHOLE_ROWS = 2048;

/** Whether each prompt must be fed in one piece. */
export function prefillsWhole(model: PipelineModel): boolean {
  return coresOf(model).some((core) => core.prefill === "whole");
}

/** Whether rows of a prompt are dropped between layers, so that only the last one surely reaches the head. */
export function dropsRows(model: PipelineModel): boolean {
  return coresOf(model).some((core) => core.prunes && core.prefill === "whole");
}

/** Smallest bucket that holds all rows, or the largest; prompts that must be fed whole fit in one. */
export function prefillBucket(model: PipelineModel, prompts: readonly number[]): number {
  const rows = prompts.reduce((a, b) => a + b, 0);
  if (prefillsWhole(model)) {
    const most = Math.max(...prompts, Math.min(rows, WHOLE_ROWS));
    return 2 ** Math.ceil(Math.log2(Math.max(32, most)));
  }
  return PREFILL_ROWS.find((bucket) => bucket >= rows) ?? PREFILL_ROWS.at(-1)!;
}

/** Rows of logits computed at once, so that they take at most 64 MiB. */
export function logitBucket(model: PipelineModel, rows: number): number {
  const most = Math.max(1, Math.floor(64 * 2 ** 20 / (model.config.vocabularySize * 4)));
  return Math.min(rows, Math.max(8, 2 ** Math.floor(Math.log2(most))));
}

const plans = new WeakMap<object, Map<string, Plan>>();

/**
 * The plan of one phase of a model. It is made once for a phase, row buckets and a length bucket: another prompt length
 * finds the same plan again.
 */
export function planFor(
  model: PipelineModel,
  device: DeviceTraits,
  phase: Target["phase"],
  purpose: Purpose,
  sizes: RunSizes,
): Plan {
  const target = targetFor(model, device, phase, purpose, sizes);
  const plan = cachedPlan(model, { ...target, slots: {} }, purpose);
  // Without a number of slots, a plan has one arena a layer. How many it takes otherwise depends on their number.
  const slots: Record<string, number> = {};
  for (const layer of kvLayout(cacheSpec(model, device, plan, sizes)).layers) {
    if (layer.arenas.length > 1) slots[`kv.${layer.request.layer}`] = layer.slots;
  }
  const staged = stagingSlots(stepLimits(sizes));
  for (const [name, arena] of plan.staging) {
    if (kvArenas(arena, staged, target.cacheType, target.bindingBytes).length > 1) slots[name] = staged;
  }
  return Object.keys(slots).length ? cachedPlan(model, { ...target, slots }, purpose) : plan;
}

/** What bounds every step of a run. */
export function stepLimits({ prefillRows, turns }: RunSizes): StepLimits {
  const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
  return {
    rows: prefillRows,
    sequences: turns.length,
    newTokens: sum(turns.map(({ maxTokens }) => maxTokens)),
    past: sum(turns.map(({ position, past, used = past }) => used ? Math.max(...used) : position)),
  };
}

/** Evicted slots that a cache keeps untouched when steps may have to be taken back: as many as can be under way. */
const REUSE_DELAY = 2 * MAX_RUN_AHEAD;

/** What the cache of a run is made for. */
export function cacheSpec(
  model: PipelineModel,
  { bindingBytes }: DeviceTraits,
  plan: Plan,
  sizes: RunSizes,
): KvCacheSpec {
  return {
    requests: plan.caches,
    capacities: sizes.capacities,
    turns: sizes.turns,
    reserve: reservedSlots(sizes.rewindable ? REUSE_DELAY : 0),
    dtype: model.dtype,
    bindingBytes,
  };
}

function cachedPlan(model: PipelineModel, target: Target, purpose: Purpose): Plan {
  const key = JSON.stringify([target, purpose]);
  let known = plans.get(model.pipeline);
  if (!known) plans.set(model.pipeline, known = new Map());
  let plan = known.get(key);
  if (!plan) known.set(key, plan = makePlan(model, target, purpose));
  return plan;
}

/** What a plan is made for: sizes that change from run to run are rounded up to buckets. */
function targetFor(
  model: PipelineModel,
  device: DeviceTraits,
  phase: Target["phase"],
  purpose: Purpose,
  sizes: RunSizes,
): Omit<Target, "slots"> {
  const sequences = sizes.capacities.length;
  const thin = sequences <= THIN_ROWS || sizes.batchInvariant;
  const rows: Rows = phase === "decode"
    ? { name: "rows", capacity: sequences, thin }
    : { name: "rows", capacity: sizes.prefillRows, thin: false };
  const logits: Rows = phase === "decode" ? rows : {
    name: "logits",
    capacity: sizes.logitRows,
    thin: purpose.type === "sample" && thin,
    from: { rows, map: "logitRows" },
  };
  return {
    phase,
    rows,
    logits,
    sequences,
    longest: lengthBucket(Math.max(...sizes.capacities)),
    lastRows: dropsRows(model) && !(purpose.type === "logits" && purpose.hidden),
    ragged: coresOf(model).some((core) => core.prunes),
    reuseDelay: sizes.rewindable && coresOf(model).some((core) => core.prunes) ? REUSE_DELAY : 0,
    ...(sizes.batchInvariant ? { batchInvariant: true } : {}),
    cacheType: model.dtype,
    ...device,
  };
}

/** The next power of two, at least 64. */
function lengthBucket(length: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(64, length)));
}

/** Traces and lowers one phase of a model. */
function makePlan(model: PipelineModel, target: Target, purpose: Purpose): Plan {
  const trace = createTrace(target);
  const { value } = model.pipeline.apply(trace, { type: "tokenIds" });
  if (purpose.type === "sample") sample(trace, value, purpose.sampling);
  if (purpose.type === "score") score(trace, value);
  const hidden = trace.marks.get("hidden");
  return lower(trace, fusions, {
    logits: value,
    ...(purpose.type === "logits" && purpose.hidden && hidden ? { hidden } : {}),
  });
}
