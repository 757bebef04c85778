// What a run would take, told without a GPU: bytes by layer and the kernels of a decode step.

import { cacheBytes as bytesOfCache } from "../cache/mod.ts";
import { allocatedBytes } from "../gpu/mod.ts";
import { kernelCounts, type Plan, printPlan, storageBytes, type Turn, weightParts } from "../graph/mod.ts";
import { attentionsOf } from "../layers/mod.ts";
import type { Model } from "../models/mod.ts";
import { KV_CACHE } from "../ops/mod.ts";
import { generateSpec } from "./generate.ts";
import { cacheSpec, type DeviceTraits, planFor } from "./plans.ts";
import { tableBytes } from "./run_tables.ts";
import { allowedTokens } from "./prompt.ts";

/** Lengths of the run that is asked about. */
export interface PlanOptions {
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** New tokens. Default: 256, or what the context leaves. */
  readonly maxTokens?: number;
  /** Sequences at once. Default: 1. */
  readonly sequences?: number;
  /** One kernel family whatever the row count. */
  readonly batchInvariant?: boolean;
  /** Traits of the device. Default: a GPU with f16 and subgroups and the smallest binding that WebGPU guarantees. */
  readonly device?: DeviceTraits;
}

/** What a run would take. Field names are those of `cairn plan --json`. */
export interface PlanReport {
  /** Tokens of each prompt. */
  readonly promptTokens: number;
  /** New tokens of each sequence. */
  readonly maxTokens: number;
  /** By layer: tokens in the cache after the prompt, and bytes allocated for prompt and new tokens. */
  readonly layers: readonly {
    readonly index: number;
    readonly kind: string;
    readonly cacheTokens: number;
    readonly cacheBytes: number;
    readonly stateBytes: number;
    /** Bytes that the layer's cache would take if it kept everything; of a model that prunes. */
    readonly fullBytes?: number;
    /** Bytes that keys and values of softmax attention would take; of a layer that keeps a state instead. */
    readonly kvBytes?: number;
  }[];
  /**
   * Bytes of a run, as its record reports them: weights and cache to the byte; activations less the uniform blocks, whose
   * alignment the device decides (at most 256 bytes a kernel call).
   */
  readonly bytes: {
    readonly weights: number;
    readonly cache: number;
    readonly activations: number;
    /** Bytes of a cache that keeps everything; of a model that prunes. */
    readonly fullCache?: number;
  };
  /** Kernel calls of prefill and decode. */
  readonly kernels: readonly { readonly name: string; readonly count: number }[];
  /** Both plans as text. */
  readonly text: string;
}

const DEFAULT_DEVICE: DeviceTraits = {
  features: { f16: true, subgroups: true, subgroupMinSize: 32, subgroupMaxSize: 32, timestamps: true },
  bindingBytes: 128 * 2 ** 20,
  workgroupBytes: 32768,
};

/**
 * Plans a run without running it; needs no GPU.
 *
 * @throws {RangeError} when the lengths are no whole numbers from 1, or over the model's context.
 */
export function planRun(model: Model, options: PlanOptions): PlanReport {
  const { promptTokens, sequences = 1, device = DEFAULT_DEVICE } = options;
  for (
    const [name, value] of Object.entries({ promptTokens, maxTokens: options.maxTokens ?? 1, sequences })
  ) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(`${name} must be a whole number of at least 1: current value is ${value}`);
    }
  }
  const maxTokens = allowedTokens(model, promptTokens, options.maxTokens);
  const turn = { tokens: promptTokens, maxTokens, position: 0 };
  const spec = generateSpec(model, new Array<Turn>(sequences).fill(turn), {
    edits: false,
    logprobs: undefined,
    batchInvariant: options.batchInvariant ?? false,
    timings: false,
  });
  const plans = (["prefill", "decode"] as const).map((phase) =>
    planFor(model, device, phase, spec.purpose, spec.sizes)
  );
  const cache = bytesOfCache(cacheSpec(model, device, plans[0], spec.sizes));
  const whole = bytesOfCache({
    ...cacheSpec(model, device, plans[0], spec.sizes),
    requests: plans[0].caches.map(({ keeps: _, ...request }) => request),
  });
  const prunes = model.pruning !== undefined;
  const kernels = new Map<string, number>();
  for (const { name, count } of plans.flatMap(kernelCounts)) {
    kernels.set(name, (kernels.get(name) ?? 0) + count);
  }
  return {
    promptTokens,
    maxTokens,
    layers: cache.layers.map(({ index, kind, cacheBytes, stateBytes }, i) => ({
      index,
      kind,
      cacheTokens: cachedTokens(plans[0], index, turn) * sequences,
      cacheBytes,
      stateBytes,
      ...(prunes ? { fullBytes: whole.layers[i].cacheBytes } : {}),
      ...(stateBytes > 0 ? { kvBytes: softmaxBytes(model, index, spec.sizes.capacities) } : {}),
    })),
    bytes: {
      weights: sum(
        model.weights.flatMap((weight) =>
          weightParts(weight, device.bindingBytes).map(({ rows }) =>
            allocatedBytes(rows * weight.columns * storageBytes(weight.dtype))
          )
        ),
      ),
      cache: cache.bytes,
      ...(prunes ? { fullCache: whole.bytes } : {}),
      activations: cache.tableBytes + activationBytes(model, plans, spec),
    },
    kernels: [...kernels].map(([name, count]) => ({ name, count })).sort((a, b) => b.count - a.count),
    text: plans.map(printPlan).join("\n\n"),
  };
}

/** Tokens that a layer's cache has after the prompt; none where it keeps a state. */
function cachedTokens({ caches }: Plan, index: number, turn: Turn): number {
  const request = caches.find(({ kind, owner }) => kind === KV_CACHE && owner === index);
  return request ? request.keeps?.(turn).stored ?? turn.tokens : 0;
}

/** Bytes of keys and values of softmax attention in a layer's place. */
function softmaxBytes(model: Model, index: number, capacities: readonly number[]): number {
  const { kvHeads, headSize } = attentionsOf(model)[index];
  return 2 * allocatedBytes(sum(capacities) * kvHeads * headSize * storageBytes(model.dtype));
}

function sum(sizes: readonly number[]): number {
  return sizes.reduce((all, size) => all + size, 0);
}

/** Bytes of workspace and tables, without the uniform arenas, whose alignment the device decides. */
function activationBytes(
  model: Model,
  plans: readonly Plan[],
  spec: ReturnType<typeof generateSpec>,
): number {
  const slots: number[] = [];
  for (const plan of plans) {
    [...plan.memory.slots].sort((a, b) => b - a).forEach((bytes, i) =>
      slots[i] = Math.max(slots[i] ?? 0, bytes)
    );
  }
  const tables = Object.values(tableBytes(model, spec.purpose, spec.sizes, plans));
  const constants = [...new Map(plans.flatMap((plan) => [...plan.constants])).values()].map((make) =>
    make().byteLength
  );
  return sum([...slots, ...tables, ...constants].map(allocatedBytes));
}
