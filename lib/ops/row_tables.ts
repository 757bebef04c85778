// The tables that say what rows are: the step's own, or those of rows that the plan picked itself.

import { type Operand, resource, type Rows, valueOperand } from "../graph/mod.ts";

/** Row structs. */
export function rowTable(rows: Rows): Operand {
  return rows.table ? valueOperand(rows.table) : resource("rows");
}

/** First row and number of rows of every sequence. */
export function spansName(rows: Rows): string {
  return rows.table ? `${rows.name}.spans` : "spans";
}

/** Tiles of consecutive rows of one sequence, for attention; its length is the count of the same name. */
export function tilesName(rows: Rows): string {
  return rows.table ? `${rows.name}.tiles` : "tiles";
}
