// The last row of each sequence alone: all that is wanted of the last layer when the next token is to be sampled.

import type { Rows, Step, Trace, Value } from "../graph/mod.ts";
import { attendTiles } from "./attend_tiles.ts";
import type { KeyValueStore } from "./kv_layout.ts";
import { tileTable } from "./step_tables.ts";

/** Softmax attention of the last row of each sequence among the rows of `q`; the other rows are dropped. */
export function attendLastRows(
  trace: Trace,
  q: Value,
  options: { readonly store: KeyValueStore; readonly scale: number; readonly name: string },
): Value {
  const { store, scale, name } = options;
  const { target } = trace;
  const counts = trace.rowCounts.get(q.rows.name) ??
    (({ sequences }: Step) => sequences.map(({ rows }) => rows));
  /** By sequence: its last row and its place among the last rows. */
  const lasts = (step: Step) => {
    let end = 0;
    let output = 0;
    return counts(step).map((count) => {
      end += count;
      return count > 0 ? { first: end - 1, count: 1, output: output++ } : undefined;
    });
  };
  const rows: Rows = {
    name,
    capacity: target.sequences,
    thin: target.logits.thin,
    from: { rows: q.rows, map: `${name}.map` },
  };
  trace.rowCounts.set(name, (step) => lasts(step).map((last) => last ? 1 : 0));
  trace.stepTables.set(`${name}.map`, {
    words: ({ sequences }) => sequences,
    make: (step) => Uint32Array.from(lasts(step).flatMap((last) => last ? [last.first] : [])),
  });
  tileTable(trace, `${name}.tiles`, lasts);
  const out = trace.value("attention", rows, q.width);
  attendTiles(trace, q, { store, scale, tiles: `${name}.tiles`, out });
  return out;
}
