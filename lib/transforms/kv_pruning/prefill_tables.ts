// What the host tells a pruned layer before a prefill step: what is kept of each sequence, and which rows attend. All of
// it follows from lengths.

import { ops, type Step, type Trace, type Turn } from "../../layers/mod.ts";
import type { LayerSchedule, Schedule } from "./policy.ts";

/** The schedule of a turn. */
export type ScheduleOf = (turn: Turn) => Schedule;

/** What a layer does to one sequence in a step; nothing when the step is about others. */
interface SequencePart extends LayerSchedule {
  /** First of its rows in the layer. */
  readonly first: number;
  /** First of its rows among those that are left. */
  readonly output: number;
  /** Whether decode may evict. */
  readonly capped: boolean;
}

function parts(step: Step, layer: number, scheduleOf: ScheduleOf): (SequencePart | undefined)[] {
  let first = 0;
  let output = 0;
  return step.sequences.map(({ rows, turn }) => {
    if (rows === 0) return undefined;
    const { layers, capped } = scheduleOf(turn);
    const part = { ...layers[layer], first, output, capped };
    first += part.rows;
    output += part.keep + part.window;
    return part;
  });
}

/** Columns that need scores: none where everything is kept anyway. */
function scoredColumns(step: Step, layer: number, scheduleOf: ScheduleOf): number {
  return Math.max(
    0,
    ...parts(step, layer, scheduleOf).map((part) => {
      if (!part) return 0;
      if (part.capped) return part.rows;
      const context = part.rows - part.window;
      const { keep, keepSlots, share = 1 } = part;
      return keep < context || keepSlots < context || share < 1 ? context : 0;
    }),
  );
}

/** Names of a pruned layer's tables. */
export interface PrefillTables {
  /** Which rows are kept, and how many columns need scores. */
  readonly selection: string;
  /** Which keys and values are kept. */
  readonly slotSelection: string;
  /** Tiles of the rows that attend before the selection: the window's, and those that score. */
  readonly firstTiles: string;
  /** Tiles of the rows before them that are left, counted among those that are left. */
  readonly contextTiles: string;
}

/**
 * Newest rows that attend first, so that their log-sum-exps are known: the window, and those that score.
 *
 * @throws {TypeError} when more than the window scores and rows are dropped.
 */
function attendFirst({ window, scored }: SequencePart, dropsRows: boolean): number {
  if (dropsRows && scored > window) {
    throw new TypeError(
      `A layer that drops rows scores with those of its window: ${scored} rows score, and the window has ${window}`,
    );
  }
  return Math.max(window, scored);
}

/** Adds the tables of a layer. */
export function prefillTables(
  trace: Trace,
  layer: number,
  scheduleOf: ScheduleOf,
  dropsRows: boolean,
): PrefillTables {
  const name = (what: string) => `prune.${layer}.${what}`;
  const partsOf = (step: Step) => parts(step, layer, scheduleOf);
  ops.selectionTable(
    trace,
    name("rows"),
    (step) => partsOf(step).map((part) => part && { ...part, count: part.rows }),
  );
  ops.selectionTable(
    trace,
    name("slots"),
    (step) => partsOf(step).map((part) => part && { ...part, count: part.rows, keep: part.keepSlots }),
  );
  trace.stepCounts.set(name("rows"), (step) => scoredColumns(step, layer, scheduleOf));
  ops.tileTable(trace, name("first"), (step) =>
    partsOf(step).map((part) => {
      if (!part) return undefined;
      const count = attendFirst(part, dropsRows);
      const output = part.output + part.keep + part.window - count;
      return { first: part.first + part.rows - count, count, output };
    }));
  ops.tileTable(trace, name("context"), (step) =>
    partsOf(step).map((part) => {
      if (!part) return undefined;
      const { output, keep, window } = part;
      return { first: output, count: keep + window - attendFirst(part, dropsRows), output };
    }));
  return {
    selection: name("rows"),
    slotSelection: name("slots"),
    firstTiles: name("first"),
    contextTiles: name("context"),
  };
}

/** Rows of every sequence that leave a layer. */
export function rowsLeft(step: Step, layer: number, scheduleOf: ScheduleOf): number[] {
  return parts(step, layer, scheduleOf).map((part) => part ? part.keep + part.window : 0);
}

/** Slots that a layer's cache has of every sequence, and rows that come to them. */
export function stagedLengths(
  step: Step,
  layer: number,
  scheduleOf: ScheduleOf,
): { past: number; rows: number }[] {
  return parts(step, layer, scheduleOf).map((part, sequence) => {
    const { turn } = step.sequences[sequence];
    const past = turn.used?.[layer] ?? turn.past?.[layer] ?? turn.position;
    return part ? { past, rows: part.rows } : { past: 0, rows: 0 };
  });
}

/** What each layer keeps of every sequence by a share of the attention. */
export function nucleusRules({ sequences }: Step, scheduleOf: ScheduleOf): ops.NucleusLimits[][] {
  return sequences.map(({ turn }) =>
    scheduleOf(turn).layers.map(({ window, past, share = 1, minimum = 0, most }) => ({
      window,
      minimum,
      share,
      least: Math.max(0, minimum - past - window),
      ...(most === undefined ? {} : { most }),
    }))
  );
}

/** How the sequences' generated tokens are compressed. */
export function compressedTurns({ sequences }: Step, scheduleOf: ScheduleOf): ops.CompressedTurn[] {
  return sequences.map(({ turn }) => {
    const { layers, windows = new Uint32Array(turn.maxTokens + 1), genBlock = 1 } = scheduleOf(turn);
    return {
      origin: turn.position + turn.tokens - 1,
      block: genBlock,
      windows,
      keeps: layers.map(({ genKeep = genBlock }) => genKeep),
    };
  });
}
