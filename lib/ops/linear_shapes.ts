// What the ops of linear attention check and share: heads of values, tiles as rows, alignment.

import { placementOf, type Rows, type Target, type Trace, type Value } from "../graph/mod.ts";
import { LINEAR_TILE } from "../../wgsl/linear_decay.ts";
import type { RecurrentState } from "./recurrent_state.ts";
import { tilesName } from "./row_tables.ts";

/**
 * Checks that a value has `heads` heads of `size` numbers.
 *
 * @throws {TypeError} when it has not.
 */
export function checkHeads(op: string, what: string, value: Value, heads: number, size: number): void {
  if (value.width !== heads * size || !(Number.isInteger(heads) && heads >= 1)) {
    throw new TypeError(
      `${op} takes ${what} as ${heads} heads of ${size} numbers: ${value.name} has ${value.width} columns`,
    );
  }
}

/**
 * Checks that query heads share KV heads evenly.
 *
 * @throws {TypeError} when they do not.
 */
export function checkGroups(op: string, heads: number, kvHeads: number): void {
  if (!Number.isInteger(heads / kvHeads)) {
    throw new TypeError(`${op} needs heads to be a multiple of kvHeads: ${heads} and ${kvHeads}`);
  }
}

/**
 * Checks that values have the same rows.
 *
 * @throws {TypeError} when they have not.
 */
export function checkRows(op: string, values: readonly Value[]): void {
  const names = [...new Set(values.map(({ rows }) => rows))].map(({ name }) => name);
  if (names.length > 1) {
    throw new TypeError(`${op} takes values of the same rows: they have ${names.join(" and ")}`);
  }
}

/**
 * Checks that what is causal has a state of the right size.
 *
 * @throws {TypeError} when it has not.
 */
export function checkState(
  op: string,
  trace: Trace,
  causal: boolean,
  words: number,
  state: RecurrentState | undefined,
): void {
  if (causal && state?.words !== words) {
    throw new TypeError(
      `${op} needs a recurrent state of ${words} numbers: ${
        state ? `${state.name} has ${state.words}` : "none is given"
      }`,
    );
  }
  if (!causal && trace.target.phase === "decode") {
    throw new TypeError(
      `${op} cannot decode where rows see later ones too: a bidirectional model has no next token`,
    );
  }
}

/** The tiles of some rows, as rows of scratch values. */
export function tileRows(trace: Trace, rows: Rows): Rows {
  const capacity = Math.ceil(rows.capacity / LINEAR_TILE) + trace.target.sequences;
  return { name: tilesName(rows), capacity, thin: false };
}

/** Most rows of a step that go one after the other through a state; more go in tiles. */
const RECURRENT_ROWS = 32;

/** Whether the recurrent form is taken: row by row through the state, in place of chunks. */
export function isRecurrent({ phase, batchInvariant = false }: Target, rows: Rows): boolean {
  if (phase === "decode") return true;
  // A few rows alone must come out as they do among many. Of rows that a plan picks there may be fewer than it has room
  // for, which spans and tiles tell.
  return !batchInvariant && rows.table === undefined && rows.capacity <= RECURRENT_ROWS;
}

/** Whether all columns of these values can be read four at a time. */
export function isAligned(values: readonly Value[]): boolean {
  return values.map(placementOf).every(({ offset, stride }) => offset % 4 === 0 && stride % 4 === 0);
}
