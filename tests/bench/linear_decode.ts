// Time of a decode step by position: from caches and states that stand as if a prompt of that length had been fed.

import { createEngine, type Engine } from "../../lib/generate/engine.ts";
import { generateSpec } from "../../lib/generate/generate.ts";
import { resolveOptions } from "../../lib/generate/options.ts";
import { writeSampling } from "../../lib/generate/sampling_tables.ts";
import { formatBytes, type KernelTime } from "../../lib/gpu/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import { type Budget, tell } from "./budget.ts";
import type { ComparedCore } from "./linear_models.ts";
import { short } from "./table.ts";

/** A core at a position. */
export interface DecodeCell {
  readonly core: string;
  /** Tokens before the step. */
  readonly position: number;
  /** Milliseconds of a step. */
  readonly ms: number;
  /** What the core's own kernels take of it, by timestamps; NaN where there are none. */
  readonly coreMs: number;
  /** Bytes of keys, values and states. */
  readonly cacheBytes: number;
  /** All bytes that are allocated beside the weights. */
  readonly bytes: number;
}

/** Kernels of a core between its projections. */
const CORE_KERNELS = /^(attentionDecode|attentionReduce|cacheAppend|featureMap|linear[A-Z])/;

/** Submits of each length; the first warms up. */
const SUBMITS = 5;
/** A long submit has so many times the steps of a short one. */
const LONG = 4;
/** Steps whose kernels are timed one by one. */
const TIMED_STEPS = 4;

/** New tokens that a cell takes. */
function newTokens(steps: number): number {
  return SUBMITS * (1 + LONG) * steps + 1;
}

/** Positions that a model needs for {@linkcode decodeCells}. */
export function decodeContext(longest: number, steps: number): number {
  return longest + newTokens(steps);
}

/** Makes the cache say that it holds `length` tokens; their keys and values are whatever stands there. */
function pretendLength({ cache, write }: Engine, length: number): void {
  const { layers, kvHeads } = cache.layout;
  const positions = Uint32Array.from({ length }, (_, i) => i);
  for (const layer of layers) {
    for (let head = 0; head < kvHeads; head++) {
      const at = layer.request.layer * kvHeads + head;
      write("extents", new Uint32Array([length, length]), (at * EXTENT_WORDS + 2) * 4);
    }
    write("slotPositions", positions, layer.positions(0, 0) * 4);
  }
}

/** An engine for one sequence that stands at a position. */
async function engineAt(model: Model, position: number, maxTokens: number, timed: boolean): Promise<Engine> {
  const options = resolveOptions(model, { temperature: 0, ignoreEos: true });
  const spec = generateSpec(model, [{ tokens: position, maxTokens, position: 0 }], {
    ...options,
    timings: timed,
  });
  // Nothing is fed, so no rows are needed for a prompt.
  const engine = await createEngine(model.store!.gpu, {
    ...spec,
    sizes: { ...spec.sizes, prefillRows: 32 },
  });
  writeSampling(engine, options, [{ position, remaining: maxTokens }], [[1]]);
  pretendLength(engine, position);
  engine.beginDecode([0]);
  return engine;
}

/** Time of a step and bytes. A wait costs the same for short and for long submits, so their difference is free of it. */
async function timeSteps(model: Model, position: number, steps: number) {
  const { gpu } = model.store!;
  const before = gpu.memory.bytes;
  const engine = await engineAt(model, position, newTokens(steps), false);
  try {
    let at = position;
    const run = async (count: number): Promise<number> => {
      const commands = engine.decode(count, at += count);
      await engine.idle();
      const start = performance.now();
      gpu.device.queue.submit([commands]);
      await engine.idle();
      return performance.now() - start;
    };
    // One of each in turn, so that both find the card's clock as high; the first pair warms up.
    const times: [short: number, long: number][] = [];
    for (let i = 0; i < SUBMITS; i++) times.push([await run(steps), await run(LONG * steps)]);
    const [brief, long] = [0, 1].map((which) => median(times.slice(1).map((pair) => pair[which])));
    const ms = (long - brief) / ((LONG - 1) * steps);
    return { ms, cacheBytes: engine.bytes.cache, bytes: gpu.memory.bytes - before };
  } finally {
    engine.release();
  }
}

/** The middle of some numbers. */
function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
}

/** Time of the core's kernels in a step, by timestamps. */
async function timeCore(model: Model, position: number): Promise<number> {
  const { gpu } = model.store!;
  if (!gpu.features.timestamps) return NaN;
  const engine = await engineAt(model, position, newTokens(TIMED_STEPS), true);
  try {
    let own: KernelTime[] = [];
    for (let i = 1; i <= 2; i++) {
      gpu.device.queue.submit([engine.decode(TIMED_STEPS, position + i * TIMED_STEPS)]);
      // The first submit warms up.
      own = (await engine.times()).filter(({ name }) => CORE_KERNELS.test(name));
    }
    return own.reduce((sum, { milliseconds }) => sum + milliseconds, 0) / TIMED_STEPS;
  } finally {
    engine.release();
  }
}

/** Times every core at every position. */
export async function decodeCells(
  model: Model,
  cores: readonly ComparedCore[],
  positions: readonly number[],
  steps: number,
  budget: Budget,
): Promise<DecodeCell[]> {
  const cells: DecodeCell[] = [];
  for (const core of cores) {
    const made = core.apply(model);
    for (const position of positions) {
      if (!budget.fits(0, `decode of ${core.name} at ${position}`)) continue;
      const time = await timeSteps(made, position, steps);
      const coreMs = await timeCore(made, position);
      cells.push({ core: core.name, position, ...time, coreMs });
      tell(
        `decode  ${core.name}  at ${position}: ${short(time.ms)} ms, of it ${
          short(coreMs)
        } ms in the core, ` +
          formatBytes(time.bytes),
      );
    }
  }
  return cells;
}
