// Gathers rows of a value: those whose logits are wanted, or those that a core left.

import {
  denseOperand,
  type OpDefinition,
  resource,
  type Rows,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { gatherRows as gatherRowsKernel } from "../../wgsl/gather_rows.ts";

/** The gather; `map` is a table of row indexes. */
const gatherRowsOp: OpDefinition<{ readonly map: string }> = {
  kind: "gatherRows",
  lower({ inputs: [x], outputs: [y], attributes: { map } }, emit): void {
    emit.dispatch(
      gatherRowsKernel(),
      [denseOperand(x), resource(map), valueOperand(y)],
      (counts) => ({ rows: counts[y.rows.name], width: y.width }),
    );
  },
};

/**
 * The rows of `x` that are in `rows`, by the maps that lead from `rows` back to those of `x`; `x` itself when they are the
 * same, which costs nothing.
 *
 * @throws {TypeError} when `rows` was not taken from the rows of `x`.
 */
export function alignRows(trace: Trace, x: Value, rows: Rows): Value {
  if (x.rows === rows) return x;
  if (!rows.from) throw new TypeError(`Rows ${rows.name} were not taken from rows ${x.rows.name}`);
  const source = alignRows(trace, x, rows.from.rows);
  const y = trace.value("gatherRows", rows, x.width);
  trace.append(gatherRowsOp, [source], [y], { map: rows.from.map });
  return y;
}

/** The rows whose logits are wanted. What follows belongs to the plan's segment `head`. */
export function gatherLogitRows(trace: Trace, x: Value): Value {
  trace.segment = "head";
  return alignRows(trace, x, trace.target.logits);
}
