// The direct path around a recurrent state: the token's own value, times a number a head.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { addSkip as addSkipKernel } from "../../wgsl/add_skip.ts";
import { constantTable } from "./constant_table.ts";

/** Arguments of {@linkcode addSkip}. */
export interface AddSkipOptions {
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Factor of the value by KV head. */
  readonly skip: readonly number[];
}

interface AddSkipAttributes extends AddSkipOptions {
  readonly table: string;
}

const addSkipOp: OpDefinition<AddSkipAttributes> = {
  kind: "addSkip",
  takesViews: true,
  lower({ inputs: [x, v], outputs: [y], attributes: { heads, kvHeads, table } }, emit): void {
    const { stride, offset } = placementOf(v);
    emit.dispatch(
      addSkipKernel(),
      [valueOperand(x), valueOperand(v), resource(table), valueOperand(y)],
      (counts) => ({ rows: counts[y.rows.name], heads, kvHeads, headSize: y.width / heads, stride, offset }),
    );
  },
};

/**
 * x + skip · v by head; `x` [rows, heads · headSize], `v` [rows, kvHeads · headSize].
 *
 * @throws {RangeError} when there is not one finite factor a KV head.
 * @throws {TypeError} when the widths do not fit.
 */
export function addSkip(trace: Trace, x: Value, v: Value, options: AddSkipOptions): Value {
  const { heads, kvHeads, skip } = options;
  if (skip.length !== kvHeads || !skip.every(Number.isFinite)) {
    throw new RangeError(
      `There must be one finite factor for each of ${kvHeads} KV heads: received ${skip.join()}`,
    );
  }
  if (x.view || x.width / heads !== v.width / kvHeads) {
    throw new TypeError(`addSkip takes heads of one size: widths are ${x.width} and ${v.width}`);
  }
  const table = constantTable(trace, "skip", skip);
  const y = trace.value("skipped", x.rows, x.width);
  trace.append(addSkipOp, [x, v], [y], { ...options, table });
  return y;
}
