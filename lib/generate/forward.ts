// forward: logits, and hidden states when asked, of every position of a sequence.

import { readBuffer } from "../gpu/mod.ts";
import type { Model } from "../models/mod.ts";
import { createEngine, type Engine } from "./engine.ts";
import { gpuOf } from "./gpu_of.ts";
import { dropsRows, logitBucket, prefillBucket, prefillsWhole, type Purpose } from "./plans.ts";
import { sliceRows } from "./prefill.ts";
import { checkIds, limitName, positionLimit } from "./prompt.ts";

/** Options of {@linkcode forward}. */
export interface ForwardOptions {
  /** Only the last position's logits. Default: all. */
  readonly lastOnly?: boolean;
  /** Hidden states too: what the head gets, after the last norm. */
  readonly hidden?: boolean;
  /** Most rows of a step; other values give the same up to rounding. Default: chosen by length. */
  readonly sliceRows?: number;
}

/** What {@linkcode forward} gives. */
export interface ForwardResult {
  /** Logits [positions, vocabularySize], row-major. */
  readonly logits: Float32Array<ArrayBuffer>;
  /** Hidden states [positions, hiddenSize], when asked for. */
  readonly hidden?: Float32Array<ArrayBuffer>;
}

/** Checks token ids against vocabulary and context. */
export function checkSequence(model: Model, ids: readonly number[]): void {
  if (ids.length === 0) throw new RangeError("The prompt is empty: give at least one token");
  checkIds(model, ids);
  const limit = positionLimit(model);
  if (limit !== undefined && ids.length > limit) {
    throw new RangeError(`The sequence has ${ids.length} tokens, over ${limitName(model)} of ${limit}`);
  }
}

/** Engine for one sequence that is only fed. */
export async function createFeedEngine(
  model: Model,
  length: number,
  purpose: Purpose,
  rows?: number,
): Promise<Engine> {
  const prefillRows = prefillBucket(model, [Math.min(length, rows ?? length)]);
  return await createEngine(gpuOf(model), {
    model,
    purpose,
    timed: false,
    sizes: {
      capacities: [length],
      turns: [{ tokens: length, maxTokens: 0, position: 0 }],
      rewindable: false,
      prefillRows: Math.min(prefillRows, rows ?? prefillRows),
      logitRows: logitBucket(model, prefillRows),
      batchInvariant: false,
    },
  });
}

/** Groups of consecutive numbers of at most `most`. */
export function* groups(numbers: readonly number[], most: number): Generator<number[]> {
  for (let i = 0; i < numbers.length; i += most) yield numbers.slice(i, i + most);
}

/**
 * Runs a model over token ids.
 *
 * @throws {RangeError} when all positions are asked of a model that drops rows, when the ids are none, not in the vocabulary, or over the context, or `sliceRows` is out of range.
 */
export async function forward(
  model: Model,
  ids: readonly number[],
  options: ForwardOptions = {},
): Promise<ForwardResult> {
  checkSequence(model, ids);
  const { sliceRows: most } = options;
  if (most !== undefined && !(Number.isInteger(most) && most >= 1)) {
    throw new RangeError(`sliceRows must be a whole number of at least 1: current value is ${most}`);
  }
  if (prefillsWhole(model) && most !== undefined) {
    throw new RangeError("This model takes a prompt in one piece: leave sliceRows out");
  }
  if (dropsRows(model) && (!options.lastOnly || options.hidden)) {
    throw new RangeError(
      "This model drops rows of a prompt and has logits of the last position only: ask for lastOnly, without hidden",
    );
  }
  const { vocabularySize, hiddenSize } = model.config;
  const gpu = gpuOf(model);
  const purpose: Purpose = { type: "logits", hidden: options.hidden ?? false };
  const engine = await createFeedEngine(model, ids.length, purpose, most);
  try {
    engine.write("states", new Uint32Array(8));
    const wanted = options.lastOnly ? 1 : ids.length;
    const logits = new Float32Array(wanted * vocabularySize);
    const hidden = options.hidden ? new Float32Array(ids.length * hiddenSize) : undefined;
    const { prefillRows, logitRows } = engine.spec.sizes;
    const feeds = [{ sequence: 0, ids, position: 0 }];
    for (const rows of sliceRows(feeds, prefillRows, { whole: prefillsWhole(model) })) {
      engine.prefill({ rows, logitRows: [], turns: engine.spec.sizes.turns }, ["body"]);
      const first = rows[0].position;
      if (hidden) {
        const { buffer } = engine.result("hidden");
        const bytes = rows.length * hiddenSize * 4;
        hidden.set(new Float32Array(await readBuffer(gpu, buffer, 0, bytes)), first * hiddenSize);
      }
      const positions = rows.map((row, i) => ({ position: row.position, i }))
        .filter(({ position }) => !options.lastOnly || position === ids.length - 1);
      for (const group of groups(positions.map(({ i }) => i), logitRows)) {
        engine.head(group, ["head"]);
        const { buffer } = engine.result("logits");
        const data = await readBuffer(gpu, buffer, 0, group.length * vocabularySize * 4);
        const at = options.lastOnly ? 0 : first + group[0];
        logits.set(new Float32Array(data), at * vocabularySize);
      }
    }
    return { logits, ...(hidden ? { hidden } : {}) };
  } finally {
    engine.release();
  }
}
