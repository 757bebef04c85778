// Lengths of PyramidInfer: how many rows enter each layer and how many slots it needs. They follow from the prompt's
// length and the settings alone, so the host plans them, in f64, before anything runs.

import { BLOCK_BIT } from "./decode_blocks.ts";
import type { LayerSchedule as PolicyLayerSchedule } from "./policy.ts";
import type { ResolvedPyramidInfer } from "./pyramid_infer_options.ts";
import { reserveOf, sinksOf, type Turn, turnLengths } from "./turn_lengths.ts";

export type { Turn };

/** What one layer of PyramidInfer does in a turn. */
export interface LayerSchedule extends PolicyLayerSchedule {
  /** Tokens kept of a block of generated ones; the whole block below the start layer. */
  readonly genKeep: number;
}

/** What all layers do in a turn. */
export interface Schedule {
  /** By layer, from the first. */
  readonly layers: readonly LayerSchedule[];
  /** Rows after the last layer. */
  readonly left: number;
  /**
   * Entry r (0 to maxTokens): newest tokens protected when row number r has run, 1 + R'; row 0 is the last token fed.
   * Bit 31: a block is compressed then.
   */
  readonly windows: Uint32Array;
  /** Tokens of a block. */
  readonly genBlock: number;
  /** Sum of the capacities, those of earlier turns taken off. */
  readonly slots: number;
}

function check(options: ResolvedPyramidInfer, layers: number, turn: Turn): void {
  if (options.startLayer >= layers) {
    throw new RangeError(
      `startLayer must be from 0 to ${
        layers - 1
      } in a model of ${layers} layers: received ${options.startLayer}`,
    );
  }
  if (!(Number.isInteger(turn.tokens) && turn.tokens >= 1)) {
    throw new RangeError(`A turn must feed at least 1 token: received ${turn.tokens}`);
  }
  if (!(Number.isInteger(turn.maxTokens) && turn.maxTokens >= 0)) {
    throw new RangeError(`The most new tokens must be a whole number from 0: received ${turn.maxTokens}`);
  }
  if (turn.past && turn.past.length !== layers) {
    throw new RangeError(
      `Slots of earlier turns must be given for all ${layers} layers: received ${turn.past.length}`,
    );
  }
}

/**
 * Plans the lengths of a turn: the recurrence of the released code in prefill, its blocks in decode. Every layer from
 * the start layer on compresses blocks, whatever the interval.
 *
 * @param layers softmax layers of the model
 * @throws {RangeError} a start layer outside the model, or a turn of no tokens
 */
export function pyramidInferSchedule(options: ResolvedPyramidInfer, layers: number, turn: Turn): Schedule {
  check(options, layers, turn);
  const { genBlock, caps, rowCap } = options;
  const windows = new Uint32Array(turn.maxTokens + 1);
  const lengths = turnLengths(options, layers, turn, caps?.[0], windows);
  const { rows, window, genKeeps } = lengths;
  // Where all layers keep whole blocks and none evicts, a closed block means nothing.
  if (!caps && genKeeps.every((kept) => kept === genBlock)) {
    windows.forEach((entry, row) => windows[row] = entry & ~BLOCK_BIT);
  }
  let slots = 0;
  const schedules = genKeeps.map((genKeep, layer): LayerSchedule => {
    const past = turn.past?.[layer] ?? 0;
    const cap = caps?.[layer] ?? Infinity;
    const own = Math.min(lengths.needs[layer], cap);
    slots += own;
    const keep = rows[layer + 1] - window;
    const keepSlots = Math.min(lengths.stored[layer], cap - reserveOf(turn)) - window;
    return {
      rows: rows[layer],
      window,
      scored: Math.min(window, rowCap ?? Infinity),
      sinks: Math.min(sinksOf(options, turn), keep, keepSlots),
      keep,
      keepSlots,
      genKeep,
      past,
      capacity: past + own,
    };
  });
  return { layers: schedules, left: rows[layers], windows, genBlock, slots };
}
