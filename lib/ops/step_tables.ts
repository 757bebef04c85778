// Tables that the host writes before each prefill step, packed: selections, tiles of rows, spans, and the turns by which
// decode compresses.

import type { Step, StepLimits, Trace } from "../graph/mod.ts";
import { TILE_ROWS } from "../../wgsl/attention_prefill.ts";
import { SELECTION_WORDS, TILE_WORDS, TURN_WORDS } from "../../wgsl/tables.ts";

/** What a layer keeps of the rows that a step adds to a sequence. */
export interface Selection {
  /** First of its rows in the layer. */
  readonly first: number;
  /** Its rows. */
  readonly count: number;
  /** Newest rows, kept in any case. */
  readonly window: number;
  /** Newest rows whose queries score. */
  readonly scored: number;
  /** First rows, kept in any case. */
  readonly sinks: number;
  /** Rows kept before the window, or the most of them where they are counted on the GPU. */
  readonly keep: number;
  /** First of its rows among those that are left. */
  readonly output: number;
}

/** Adds a table of selections by sequence; none for a sequence without rows in the step. */
export function selectionTable(
  trace: Trace,
  name: string,
  selections: (step: Step) => readonly (Selection | undefined)[],
): void {
  trace.stepTables.set(name, {
    words: ({ sequences }) => sequences * SELECTION_WORDS,
    make(step) {
      const table = new Uint32Array(step.sequences.length * SELECTION_WORDS);
      selections(step).forEach((selection, sequence) => {
        if (!selection) return;
        const { first, count, window, scored, sinks, keep, output } = selection;
        table.set([first, count, window, scored, sinks, keep, output], sequence * SELECTION_WORDS);
      });
      return table;
    },
  });
}

/** Consecutive rows of a sequence, and where their values go. */
export interface RowRange {
  readonly first: number;
  readonly count: number;
  readonly output: number;
}

/** Adds a table of tiles of rows, with its count under the same name. */
export function tileTable(
  trace: Trace,
  name: string,
  ranges: (step: Step) => readonly (RowRange | undefined)[],
): void {
  const tiles = (step: Step): number[] =>
    ranges(step).flatMap((range, sequence) => {
      const words: number[] = [];
      for (let at = 0; range && at < range.count; at += TILE_ROWS) {
        words.push(range.first + at, Math.min(TILE_ROWS, range.count - at), sequence, range.output + at);
      }
      return words;
    });
  trace.stepTables.set(name, {
    words: ({ rows, sequences }: StepLimits) => (Math.ceil(rows / TILE_ROWS) + sequences) * TILE_WORDS,
    make: (step) => Uint32Array.from(tiles(step)),
  });
  trace.stepCounts.set(name, (step) => tiles(step).length / TILE_WORDS);
}

/** Adds count, spans and tiles of rows that the plan picks, for the layers above them. */
export function pickedRowTables(trace: Trace, name: string, counts: (step: Step) => number[]): void {
  const ranges = (step: Step): RowRange[] => {
    let first = 0;
    return counts(step).map((count) => {
      const range = { first, count, output: first };
      first += count;
      return range;
    });
  };
  trace.rowCounts.set(name, counts);
  trace.stepTables.set(`${name}.spans`, {
    words: ({ sequences }) => sequences * 2,
    make: (step) => Uint32Array.from(ranges(step).flatMap(({ first, count }) => [first, count])),
  });
  tileTable(trace, `${name}.tiles`, ranges);
}

/** How a sequence's generated tokens are compressed. */
export interface CompressedTurn {
  /** Position of the last token fed: number 0 of those that are compressed. */
  readonly origin: number;
  /** Tokens of a block. */
  readonly block: number;
  /** By token number: newest tokens protected; bit 31: a block is compressed. */
  readonly windows: Uint32Array;
  /** By layer: tokens kept of a block. */
  readonly keeps: readonly number[];
}

/** Adds the tables `turns` and `windows`. */
export function turnTables(
  trace: Trace,
  layers: number,
  turns: (step: Step) => readonly CompressedTurn[],
): void {
  trace.stepTables.set("turns", {
    words: ({ sequences }) => sequences * TURN_WORDS,
    make(step) {
      let at = 0;
      return Uint32Array.from(
        turns(step).flatMap(({ origin, block, windows, keeps }) => {
          const words = [origin, block, at, at + windows.length];
          at += windows.length + keeps.length;
          return words;
        }),
      );
    },
  });
  trace.stepTables.set("windows", {
    words: ({ newTokens, sequences }) => newTokens + sequences * (layers + 1),
    make: (step) => Uint32Array.from(turns(step).flatMap(({ windows, keeps }) => [...windows, ...keeps])),
  });
}
