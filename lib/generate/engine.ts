// The engine of a run: plans, cache and tables on the GPU. It feeds rows and replays plans; what to feed and when to stop
// is decided above it.

import { type Cache, createCache } from "../cache/mod.ts";
import {
  createRecorder,
  createStaging,
  createTimer,
  type Gpu,
  type KernelTime,
  type Recorder,
  type Staging,
  type Timer,
} from "../gpu/mod.ts";
import {
  bindPlan,
  type BoundPlan,
  type Counts,
  createWorkspace,
  type Plan,
  type Workspace,
} from "../graph/mod.ts";
import type { Model } from "../models/mod.ts";
import { NONE, SAMPLE_WORDS, STATE_WORDS } from "../../wgsl/tables.ts";
import { storeOf } from "./gpu_of.ts";
import { cacheSpec, deviceTraits, planFor, type Purpose, type RunSizes, stepLimits } from "./plans.ts";
import { type PrefillSlice, prefillStep } from "./prefill_step.ts";
import { createRunTables, type RunTables, tableBytes } from "./run_tables.ts";
import { FORCED_FIRST_WORD, packRows, packSpans } from "./tables.ts";

/** What an engine is made for. */
export interface EngineSpec {
  /** The model, loaded. */
  readonly model: Model;
  /** What the run is for. */
  readonly purpose: Purpose;
  /** Sizes. */
  readonly sizes: RunSizes;
  /** Times every kernel. */
  readonly timed: boolean;
}

/** Plans, cache and tables of a run. */
export interface Engine {
  /** The device. */
  readonly gpu: Gpu;
  /** What it was made for. */
  readonly spec: EngineSpec;
  /** What the layers keep. */
  readonly cache: Cache;
  /** Bytes by use. */
  readonly bytes: { readonly cache: number; readonly activations: number };
  /** Writes a table from byte `offset` on. */
  write(
    table: string,
    data: ArrayBuffer | Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>,
    offset?: number,
  ): void;
  /** A table's buffer. */
  table(name: string): GPUBuffer;
  /** Feeds one slice: submits the plan's segments. `record` may append copies to the same submit. */
  prefill(slice: PrefillSlice, segments: readonly string[], record?: (recorder: Recorder) => void): void;
  /** Replays segments for other logit rows of the slice fed last. */
  head(
    logitRows: readonly number[],
    segments: readonly string[],
    record?: (recorder: Recorder) => void,
  ): void;
  /** Says which sequences decode, one row each. */
  beginDecode(sequences: readonly number[]): void;
  /**
   * Records decode steps; `longest` is the length of the longest sequence after them. A checkpoint is taken before them,
   * `record` may append copies after them. Submit the commands before the next call.
   */
  decode(
    steps: number,
    longest: number,
    options?: { readonly before?: Checkpoint; readonly record?: (recorder: Recorder) => void },
  ): GPUCommandBuffer;
  /** Buffer, offset and stride of a prefill result. */
  result(name: string): { buffer: GPUBuffer; offset: number; stride: number };
  /** A staging buffer for {@linkcode Engine.copySamples}. */
  createSampleStaging(): Promise<Staging>;
  /** Records the copy of states, samples and top log-probabilities into a staging buffer. */
  copySamples(recorder: Recorder, staging: Staging): void;
  /** Splits what {@linkcode Engine.copySamples} copied. */
  splitSamples(data: ArrayBuffer): Record<"states" | "samples" | "top", Uint32Array<ArrayBuffer>>;
  /** The last of the next `total` tokens of sequence 0 are these, whatever the logits say. */
  force(ids: readonly number[], total: number): void;
  /** Waits until the device is idle. */
  idle(): Promise<void>;
  /** Takes a checkpoint of everything that changes in place from step to step. */
  save(into: Checkpoint): void;
  /** Goes back to a checkpoint. */
  restore(from: Checkpoint): void;
  /** Makes room for a checkpoint. */
  createCheckpoint(): Promise<Checkpoint>;
  /** Kernel times of the submits so far, when timed. */
  times(): Promise<KernelTime[]>;
  /** Frees everything but the weights. */
  release(): void;
}

/** A copy of everything that changes in place. */
export interface Checkpoint {
  readonly buffer: GPUBuffer;
  release(): void;
}

/**
 * Makes an engine: plans, compiled kernels, cache, tables.
 *
 * @throws {GpuMemoryError} when it does not fit; nothing stays allocated then.
 * @throws {RangeError} when one of its buffers is over the device's binding limit.
 */
export async function createEngine(gpu: Gpu, spec: EngineSpec): Promise<Engine> {
  const { model, purpose, sizes } = spec;
  const store = storeOf(model);
  gpu.check();
  const traits = deviceTraits(gpu);
  const sequences = sizes.capacities.length;
  const plans: Plan[] = [planFor(model, traits, "prefill", purpose, sizes)];
  if (purpose.type === "sample") plans.push(planFor(model, traits, "decode", purpose, sizes));
  const tableSizes = tableBytes(model, purpose, sizes, plans);
  const held: { release(): void }[] = [];
  const release = () => {
    for (const part of held.reverse()) part.release();
    held.length = 0;
  };
  store.retain();
  held.push(store);
  try {
    const cache = await createCache(gpu, cacheSpec(model, traits, plans[0], sizes));
    held.push(cache);
    const workspace: Workspace = createWorkspace(gpu);
    held.push(workspace);
    for (const plan of plans) await workspace.fit(plan.memory.slots);

    const tables = await createRunTables(gpu, tableSizes, plans, cache.resources, traits);
    held.push(tables);
    const bound: BoundPlan[] = [];
    for (const plan of plans) {
      bound.push(await bindPlan(gpu, plan, { weights: store, workspace, resource: tables.buffer }));
      held.push(bound.at(-1)!);
    }
    const timer: Timer | undefined = spec.timed ? await createTimer(gpu, 16384) : undefined;
    if (timer) held.push({ release: () => timer.dispose() });
    return assemble(gpu, spec, {
      cache,
      workspace,
      bound,
      tables,
      timer,
      sequences,
      release,
    });
  } catch (error) {
    release();
    throw error;
  }
}

interface Parts {
  readonly cache: Cache;
  readonly workspace: Workspace;
  readonly bound: readonly BoundPlan[];
  readonly tables: RunTables;
  readonly timer: Timer | undefined;
  readonly sequences: number;
  readonly release: () => void;
}

function assemble(gpu: Gpu, spec: EngineSpec, parts: Parts): Engine {
  const { cache, workspace, bound, tables, timer, sequences } = parts;
  const { queue } = gpu.device;
  const { purpose } = spec;
  const limits = stepLimits(spec.sizes);
  const [prefillPlan, decodePlan] = bound;
  let counts: Counts = {};
  let decodeRows = 0;
  const write: Engine["write"] = (name, data, offset = 0) => {
    if (data.byteLength > 0) queue.writeBuffer(tables.buffer(name), offset, data as ArrayBuffer);
  };
  const submit = (plan: BoundPlan, segments: readonly string[], record?: (recorder: Recorder) => void) => {
    plan.setCounts(counts);
    const recorder = createRecorder(gpu, timer);
    plan.record(recorder, segments);
    record?.(recorder);
    queue.submit([recorder.finish()]);
  };
  const sampling = purpose.type === "sample" ? purpose.sampling : undefined;
  const sampleSizes = {
    states: sequences * STATE_WORDS * 4,
    samples: sequences * (sampling?.ring ?? 0) * SAMPLE_WORDS * 4,
    top: sequences * (sampling?.ring ?? 0) * (sampling?.logprobs ?? 0) * 8,
  };
  const mutable = [
    { buffer: tables.buffer("states"), offset: 0, size: sequences * STATE_WORDS * 4 },
    ...cache.mutable,
  ];
  const copyRanges = (encoder: GPUCommandEncoder, checkpoint: Checkpoint, way: "save" | "restore") => {
    let at = 0;
    for (const { buffer, offset, size } of mutable) {
      if (way === "save") encoder.copyBufferToBuffer(buffer, offset, checkpoint.buffer, at, size);
      else encoder.copyBufferToBuffer(checkpoint.buffer, at, buffer, offset, size);
      at += size;
    }
  };
  const submitCopy = (checkpoint: Checkpoint, way: "save" | "restore") => {
    const encoder = gpu.device.createCommandEncoder();
    copyRanges(encoder, checkpoint, way);
    queue.submit([encoder.finish()]);
  };
  return {
    gpu,
    spec,
    cache,
    bytes: {
      cache: cache.bytes,
      activations: cache.tableBytes + workspace.bytes + tables.bytes +
        bound.reduce((sum, plan) => sum + plan.bytes, 0),
    },
    write,
    table: tables.buffer,
    prefill(slice, segments, record): void {
      const step = prefillStep(prefillPlan.plan, limits, slice);
      for (const [name, data] of step.tables) write(name, data);
      counts = step.counts;
      submit(prefillPlan, segments, record);
    },
    head(logitRows, segments, record): void {
      write("logitRows", new Uint32Array(logitRows));
      counts = { ...counts, logits: logitRows.length };
      submit(prefillPlan, segments, record);
    },
    beginDecode(active): void {
      const rows = active.map((sequence) => ({ token: NONE, sequence, position: 0, index: 0 }));
      decodeRows = rows.length;
      write("rows", packRows(rows));
      write("spans", packSpans(rows, sequences));
      write("logitRows", new Uint32Array(active.map((_, i) => i)));
    },
    decode(steps, longest, { before, record } = {}): GPUCommandBuffer {
      counts = { rows: decodeRows, logits: decodeRows, tiles: 0, longest };
      decodePlan.setCounts(counts);
      const recorder = createRecorder(gpu, timer);
      if (before) copyRanges(recorder.encoder(), before, "save");
      for (let i = 0; i < steps; i++) decodePlan.record(recorder, ["body", "head", "sample"]);
      record?.(recorder);
      return recorder.finish();
    },
    result: (name) => prefillPlan.result(name),
    createSampleStaging: () => createStaging(gpu, sampleSizes.states + sampleSizes.samples + sampleSizes.top),
    copySamples(recorder, staging): void {
      let target = 0;
      for (const [name, size] of Object.entries(sampleSizes)) {
        if (size) staging.copy(recorder.encoder(), tables.buffer(name), 0, size, target);
        target += size;
      }
    },
    splitSamples(data) {
      const words = new Uint32Array(data);
      const states = sampleSizes.states / 4;
      const samples = states + sampleSizes.samples / 4;
      return {
        states: words.slice(0, states),
        samples: words.slice(states, samples),
        top: words.slice(samples, samples + sampleSizes.top / 4),
      };
    },
    force(ids, total): void {
      write("forced", new Uint32Array(ids));
      // Token i of the run is forced[forcedFirst + i], counted with wrap-around.
      write("settings", new Uint32Array([ids.length - total, total]), FORCED_FIRST_WORD * 4);
    },
    idle: () => gpu.guard(queue.onSubmittedWorkDone().then(() => {})),
    save: (into) => submitCopy(into, "save"),
    restore: (from) => submitCopy(from, "restore"),
    async createCheckpoint(): Promise<Checkpoint> {
      return await gpu.memory.allocate({
        label: "checkpoint",
        owner: "activations",
        size: mutable.reduce((sum, range) => sum + range.size, 0),
        usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      });
    },
    times: () => timer ? timer.read() : Promise.resolve([]),
    release: parts.release,
  };
}
