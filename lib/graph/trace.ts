// Tracing: layers call ops, ops append operations. One trace gives one plan.

import type { GpuFeatures } from "../gpu/mod.ts";
import type { Kernel, Parameters, StorageType } from "../../wgsl/kernel.ts";
import type { Operand } from "./dispatch.ts";
import type { StagingArena, Step, StepTable, Turn } from "./step.ts";
import type { Counts, Rows, Value } from "./value.ts";

/** What a plan is made for. */
export interface Target {
  /** `prefill` takes tokens from the host, `decode` from what was sampled last. */
  readonly phase: "prefill" | "decode";
  /** The step's rows. */
  readonly rows: Rows;
  /** The rows whose logits are wanted; in `decode` the same as `rows`. */
  readonly logits: Rows;
  /** Sequences in the tables. */
  readonly sequences: number;
  /**
   * Slots of each KV head over all sequences, by arena group (a layer's cache, or what stages keys and values); an absent
   * one has room for everything in one binding.
   */
  readonly slots: Readonly<Record<string, number>>;
  /** Longest a sequence may become. */
  readonly longest: number;
  /** Whether only the last row of each sequence is wanted in the end: others may be dropped in the last layer. */
  readonly lastRows: boolean;
  /** Whether layers keep different tokens, so that each has lengths and positions of its own. */
  readonly ragged: boolean;
  /** Slots that stay untouched for so many evictions, so that steps can be taken back. */
  readonly reuseDelay: number;
  /** Whether one family of kernels is taken whatever the number of rows. Default: no. */
  readonly batchInvariant?: boolean;
  /** Storage type of caches. */
  readonly cacheType: StorageType;
  /** Granted features. */
  readonly features: GpuFeatures;
  /** Largest storage binding in bytes. */
  readonly bindingBytes: number;
  /** Workgroup memory in bytes. */
  readonly workgroupBytes: number;
}

/** What lowering an operation writes to. */
export interface Emit {
  /** What the plan is made for. */
  readonly target: Target;
  /** The trace being lowered; scratch values are made here. */
  readonly trace: Trace;
  /** Appends a kernel call. */
  dispatch(
    kernel: Kernel,
    operands: readonly Operand[],
    parameters: (counts: Counts) => Parameters,
  ): void;
}

/** What an op is: its name, and how it becomes kernel calls. */
export interface OpDefinition<A> {
  /** Field-standard name, for printed plans. */
  readonly kind: string;
  /** Whether its inputs may be views: ranges of columns of a wider value. Default: no. */
  readonly takesViews?: boolean;
  /** Emits the kernel calls of an operation. */
  lower(operation: Operation<A>, emit: Emit): void;
}

/** One op in a trace. */
export interface Operation<A = unknown> {
  /** What it is. */
  readonly definition: OpDefinition<A>;
  /** Values it reads. */
  readonly inputs: readonly Value[];
  /** Values it makes. */
  readonly outputs: readonly Value[];
  /** Its other arguments. */
  readonly attributes: A;
  /** Part of the plan it belongs to; parts are replayed apart. */
  readonly segment: string;
}

/** What a core keeps between steps, asked for while tracing. */
export interface CacheRequest {
  /** Which cache makes it, for example `kv`. */
  readonly kind: string;
  /** Index of the layer among those with a cache, from 0. */
  readonly layer: number;
  /** The attention layer that asked for it, from 0; one that keeps several things asks several times. */
  readonly owner?: number;
  /** Sizes, as the cache's kind defines them. */
  readonly sizes: Readonly<Record<string, number>>;
  /** What it keeps of a turn, when that is not all of its tokens. */
  readonly keeps?: (turn: Turn) => KeptTokens;
}

/** How much of a turn a layer keeps, for each KV head. */
export interface KeptTokens {
  /** Tokens in the cache after the prompt. */
  readonly stored: number;
  /** Most tokens at once until the last new one. */
  readonly capacity: number;
}

/** A trace being made. */
export interface Trace {
  /** What the plan is made for. */
  readonly target: Target;
  /** Operations so far. */
  readonly operations: Operation[];
  /** Caches asked for so far. */
  readonly caches: CacheRequest[];
  /** Host tables asked for so far, by resource name; written once when a plan is bound. */
  readonly constants: Map<string, () => Float32Array>;
  /** Tables that the host writes before each prefill step, by resource name. */
  readonly stepTables: Map<string, StepTable>;
  /** Sizes that follow from a prefill step, by name. */
  readonly stepCounts: Map<string, (step: Step) => number>;
  /** Rows that the plan picks itself: how many of each sequence follow from a prefill step, by name. */
  readonly rowCounts: Map<string, (step: Step) => number[]>;
  /** Slices of rows, by name. */
  readonly rowSlices: Map<string, Rows>;
  /** Staging arenas asked for, by name. */
  readonly staging: Map<string, StagingArena>;
  /** Values that layers name for those who ask for them, such as the last hidden states. */
  readonly marks: Map<string, Value>;
  /** Part of the plan that new operations belong to. */
  segment: string;
  /** Attention layers so far: what is asked for now belongs to the last of them. */
  attentionLayers: number;
  /** Makes a new value. */
  value(name: string, rows: Rows, width: number): Value;
  /** Appends an operation. */
  append<A>(
    definition: OpDefinition<A>,
    inputs: readonly Value[],
    outputs: readonly Value[],
    attributes: A,
  ): void;
  /** Asks for a cache for the next layer of this kind. */
  cache(
    kind: string,
    sizes: Readonly<Record<string, number>>,
    keeps?: (turn: Turn) => KeptTokens,
  ): CacheRequest;
}

/** Begins a trace. */
export function createTrace(target: Target): Trace {
  let values = 0;
  const trace: Trace = {
    target,
    operations: [],
    caches: [],
    constants: new Map(),
    stepTables: new Map(),
    stepCounts: new Map(),
    rowCounts: new Map(),
    staging: new Map(),
    rowSlices: new Map(),
    marks: new Map(),
    segment: "body",
    attentionLayers: 0,
    value: (name, rows, width) => ({ id: values++, name, rows, width }),
    append(definition, inputs, outputs, attributes): void {
      trace.operations.push(
        { definition, inputs, outputs, attributes, segment: trace.segment } as Operation<unknown>,
      );
    },
    cache(kind, sizes, keeps): CacheRequest {
      const layer = trace.caches.filter((c) => c.kind === kind).length;
      const owner = Math.max(0, trace.attentionLayers - 1);
      const request = { kind, layer, owner, sizes, ...(keeps ? { keeps } : {}) };
      trace.caches.push(request);
      return request;
    },
  };
  return trace;
}
