// The kernels between the projections alone, by timestamps: linear attention in chunks beside flash softmax attention.
//
// One layer is fed as a model is: in slices, of which each goes on from cache or state, and in one piece.

import { createEngine } from "../../lib/generate/engine.ts";
import { PREFILL_ROWS } from "../../lib/generate/plans.ts";
import { sliceRows } from "../../lib/generate/prefill.ts";
import type { Gpu, KernelTime } from "../../lib/gpu/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import { LINEAR_TILE } from "../../wgsl/linear_decay.ts";
import { STATE_WORDS } from "../../wgsl/tables.ts";
import { type Budget, tell } from "./budget.ts";
import { type ComparedCore, type HeadShape, headShapes, oneLayer } from "./linear_models.ts";
import { short } from "./table.ts";

/** A core with a length of prompt. */
export interface KernelCell {
  /** Name of the head shape. */
  readonly shape: string;
  readonly core: string;
  /** Whether the prompt was fed in one piece; else in slices. */
  readonly whole: boolean;
  /** Tokens of the prompt. */
  readonly length: number;
  /** Milliseconds of the attention's kernels over the whole prompt, projections and feature maps not among them. */
  readonly ms: number;
  /** The same by kernel. */
  readonly passes: readonly KernelTime[];
  /** Milliseconds of feature maps; of softmax attention, of what rotates and stores keys and values. */
  readonly besideMs: number;
  /** Operations counted: multiplications and additions, without what a mask hides. */
  readonly flops: number;
}

/** The attention itself. */
const ATTENTION = /^(attentionPrefill|linearChunk)/;
/** What queries, keys and values go through before. */
const BESIDE = /^(cacheAppend|featureMap)/;

/** Rows of the slices that long prompts are fed in. */
export const SLICE_ROWS: number = PREFILL_ROWS.at(-1)!;

/** Runs of which the fastest counts, after one that warms up. */
const RUNS = 3;
/** Short prompts are fed again and again until they are so many rows, as a card lowers its clock when it waits. */
const BUSY_ROWS = 16384;
const MOST_ROUNDS = 16;

/** Operations of softmax attention: every row with itself and those before it. */
export function softmaxFlops(length: number, { heads, headSize }: HeadShape): number {
  return heads * headSize * 4 * (length * (length + 1) / 2);
}

/** Operations of linear attention in chunks: states, scan, and the output from the state and from the chunk. */
export function linearFlops(length: number, { heads, kvHeads, headSize }: HeadShape): number {
  const square = headSize ** 2;
  let flops = 0;
  for (let first = 0; first < length; first += LINEAR_TILE) {
    const rows = Math.min(LINEAR_TILE, length - first);
    flops += kvHeads * 2 * square * (rows + 1);
    flops += heads * (2 * rows * square + 4 * headSize * (rows * (rows + 1) / 2));
  }
  return flops;
}

function total(times: readonly KernelTime[]): number {
  return times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
}

/** Kernel times of one prompt. */
async function timeKernels(model: Model, length: number, rows: number): Promise<KernelTime[]> {
  const { gpu } = model.store!;
  const rounds = gpu.adapter.isFallback ? 1 : Math.min(MOST_ROUNDS, Math.ceil(BUSY_ROWS / length));
  const turns = [{ tokens: length, maxTokens: 0, position: 0 }];
  const engine = await createEngine(gpu, {
    model,
    purpose: { type: "logits", hidden: false },
    timed: true,
    sizes: {
      capacities: [length],
      turns,
      rewindable: false,
      prefillRows: rows,
      logitRows: 1,
      batchInvariant: false,
    },
  });
  try {
    const ids = Array.from({ length }, (_, i) => (i * 31) % model.config.vocabularySize);
    const slices = [...sliceRows([{ sequence: 0, ids, position: 0 }], rows)];
    const attention = (times: readonly KernelTime[]) =>
      total(times.filter(({ name }) => ATTENTION.test(name)));
    let best: KernelTime[] = [];
    for (let run = 0; run <= RUNS; run++) {
      for (let round = 0; round < rounds; round++) {
        engine.cache.reset();
        engine.write("states", new Uint32Array(STATE_WORDS));
        for (const slice of slices) engine.prefill({ rows: slice, logitRows: [], turns }, ["body"]);
      }
      await engine.idle();
      const times = (await engine.times()).map((time) => ({
        ...time,
        milliseconds: time.milliseconds / rounds,
      }));
      if (run === 1 || (run > 1 && attention(times) < attention(best))) best = times;
    }
    return best;
  } finally {
    engine.release();
  }
}

/** Times every core's kernels with every length, in slices and in one piece. */
export async function kernelCells(
  gpu: Gpu,
  cores: readonly ComparedCore[],
  lengths: readonly number[],
  budget: Budget,
): Promise<KernelCell[]> {
  const cells: KernelCell[] = [];
  for (const [name, shape] of Object.entries(headShapes(gpu))) {
    using model = await oneLayer(gpu, shape, Math.max(...lengths));
    for (const core of cores) {
      const made = core.apply(model);
      for (const length of lengths) {
        for (const whole of length > SLICE_ROWS ? [false, true] : [false]) {
          const what = `kernels of ${core.name}, ${name}, ${length} tokens`;
          if (!budget.fits(0, what)) continue;
          const times = await timeKernels(made, length, whole ? length : Math.min(length, SLICE_ROWS));
          const passes = times.filter(({ name }) => ATTENTION.test(name));
          if (passes.length === 0) {
            throw new Error(`No kernel of attention among ${times.map(({ name }) => name).join(", ")}`);
          }
          const ms = total(passes);
          const besideMs = total(times.filter(({ name }) => BESIDE.test(name)));
          const flops = (core.quadratic ? softmaxFlops : linearFlops)(length, shape);
          cells.push({ shape: name, core: core.name, whole, length, ms, passes, besideMs, flops });
          tell(`${what}${whole ? " whole" : ""}: ${short(ms)} ms, ${short(besideMs)} ms before`);
        }
      }
    }
  }
  return cells;
}
