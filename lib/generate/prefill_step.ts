// One prefill step as the GPU gets it: the tables that the host writes before it, and the sizes that follow from its rows.

import type { Counts, Plan, Step, StepLimits, Turn } from "../graph/mod.ts";
import { LEFT_LOGIT_ROWS } from "../ops/mod.ts";
import { TILE_ROWS } from "../../wgsl/attention_prefill.ts";
import { packRows, packSpans, packTiles, type StepRow, tileCount } from "./tables.ts";

/** Rows of one prefill step that are put together from several sequences. */
export interface PrefillSlice {
  /** Rows in order; rows of a sequence stand together. */
  readonly rows: readonly StepRow[];
  /** Indexes of rows whose logits are wanted; of a model that drops rows, only the last one of a sequence. */
  readonly logitRows: readonly number[];
  /** The turns of all sequences of the run. */
  readonly turns: readonly Turn[];
}

/** What a step writes, and its sizes. */
export interface PrefillStep {
  /** Tables by name. */
  readonly tables: readonly (readonly [name: string, data: Uint32Array<ArrayBuffer>])[];
  /** Row counts and other sizes. */
  readonly counts: Counts;
}

/**
 * Puts a step together.
 *
 * @throws {RangeError} when logits of rows are wanted that may have been dropped.
 */
export function prefillStep(plan: Plan, limits: StepLimits, slice: PrefillSlice): PrefillStep {
  const { rows, logitRows, turns } = slice;
  const tiles = packTiles(rows, TILE_ROWS);
  const spans = packSpans(rows, limits.sequences);
  const step: Step = {
    sequences: turns.map((turn, sequence) => ({ turn, rows: spans[sequence * 2 + 1] })),
  };
  const places = placeLogitRows(plan, step, rows, logitRows);
  const picked = [...plan.rowCounts].map(([name, of]) => [name, of(step).reduce((a, b) => a + b, 0)]);
  const sizes = [...plan.stepCounts].map(([name, of]) => [name, of(step)]);
  return {
    tables: [
      ["rows", packRows(rows)],
      ["spans", spans],
      ["tiles", tiles],
      ["logitRows", new Uint32Array(logitRows)],
      ...(places ? [[LEFT_LOGIT_ROWS, new Uint32Array(places)] as const] : []),
      ...[...plan.stepTables].map(([name, { make }]) => [name, make(step, limits)] as const),
    ],
    counts: {
      rows: rows.length,
      logits: logitRows.length,
      tiles: tileCount(tiles),
      longest: Math.max(...rows.map((row) => row.position)) + 1,
      ...Object.fromEntries([...picked, ...sizes]),
    },
  };
}

/**
 * Where the rows whose logits are wanted stand among those that are left at the head.
 *
 * @throws {RangeError} when one of them may have been dropped.
 */
function placeLogitRows(
  plan: Plan,
  step: Step,
  rows: readonly StepRow[],
  wanted: readonly number[],
): readonly number[] | undefined {
  const left = plan.results.logits.rows.from?.rows.name;
  const counts = left === undefined ? undefined : plan.rowCounts.get(left)?.(step);
  if (!counts) return undefined;
  return wanted.map((row) => {
    const { sequence } = rows[row];
    if (rows[row + 1]?.sequence === sequence) {
      throw new RangeError("A model that drops rows has logits of the last row of a sequence only");
    }
    return counts.slice(0, sequence + 1).reduce((a, b) => a + b, 0) - 1;
  });
}
