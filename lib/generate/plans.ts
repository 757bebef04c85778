// Plans of a run: one for prefill and one for decode, keyed by phase and row bucket, never by a prompt's length.

import type { StorageType } from "../../wgsl/kernel.ts";
import type { Gpu, GpuFeatures } from "../gpu/mod.ts";
import { createTrace, lower, type Plan, type Rows, type Target } from "../graph/mod.ts";
import { coresOf, type PipelineModel } from "../layers/mod.ts";
import { fusions, sample, type SampleOptions, score } from "../ops/mod.ts";

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
  /** Slots of each sequence. */
  readonly capacities: readonly number[];
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

/** Smallest bucket that holds all rows, or the largest; a model that must be prefilled whole gets all rows at once. */
export function prefillBucket(model: PipelineModel, rows: number): number {
  if (coresOf(model).some((core) => core.prefill === "whole")) {
    return 2 ** Math.ceil(Math.log2(Math.max(32, rows)));
  }
  return PREFILL_ROWS.find((bucket) => bucket >= rows) ?? PREFILL_ROWS.at(-1)!;
}

/** Rows of logits computed at once, so that they take at most 64 MiB. */
export function logitBucket(model: PipelineModel, rows: number): number {
  const most = Math.max(1, Math.floor(64 * 2 ** 20 / (model.config.vocabularySize * 4)));
  return Math.min(rows, Math.max(8, 2 ** Math.floor(Math.log2(most))));
}

/** Traces and lowers one phase of a model. */
export function makePlan(
  model: PipelineModel,
  device: DeviceTraits,
  phase: Target["phase"],
  purpose: Purpose,
  sizes: RunSizes,
): Plan {
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
  const cacheType: StorageType = model.dtype;
  const trace = createTrace({
    phase,
    rows,
    logits,
    sequences,
    slots: sizes.capacities.reduce((a, b) => a + b, 0),
    longest: Math.max(...sizes.capacities),
    cacheType,
    ...device,
  });
  const { value } = model.pipeline.apply(trace, { type: "tokenIds" });
  if (purpose.type === "sample") sample(trace, value, purpose.sampling);
  if (purpose.type === "score") score(trace, value);
  const hidden = trace.marks.get("hidden");
  return lower(trace, fusions, {
    logits: value,
    ...(purpose.type === "logits" && purpose.hidden && hidden ? { hidden } : {}),
  });
}
