// Gathers rows of a value: those whose logits are wanted, or those that a core left.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Rows,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { gatherRows as gatherRowsKernel } from "../../wgsl/gather_rows.ts";

/** The gather. Inputs: x, and the row indexes where they are no named table. */
const gatherRowsOp: OpDefinition<{ readonly map?: string }> = {
  kind: "gatherRows",
  takesViews: true,
  lower({ inputs: [x, indexes], outputs: [y], attributes: { map } }, emit): void {
    const { stride, offset } = placementOf(x);
    emit.dispatch(
      gatherRowsKernel(),
      [valueOperand(x), map === undefined ? valueOperand(indexes) : resource(map), valueOperand(y)],
      (counts) => ({ rows: counts[y.rows.name], width: y.width, stride, offset }),
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
  const { map } = rows.from;
  if (typeof map === "string") trace.append(gatherRowsOp, [source], [y], { map });
  else trace.append(gatherRowsOp, [source, map], [y], {});
  return y;
}

/** Where the rows whose logits are wanted stand among those that are left. */
export const LEFT_LOGIT_ROWS = "leftLogitRows";

/** The rows whose logits are wanted. What follows belongs to the plan's segment `head`. */
export function gatherLogitRows(trace: Trace, x: Value): Value {
  trace.segment = "head";
  const { rows, logits } = trace.target;
  // Those wanted are counted among the rows that are left.
  const picked = x.rows !== rows && logits.from?.rows === rows;
  return alignRows(trace, x, picked ? { ...logits, from: { rows: x.rows, map: LEFT_LOGIT_ROWS } } : logits);
}
