// Sum of two values, for residual connections that are not fused into the linear before them.

import { denseOperand, type OpDefinition, type Trace, type Value, valueOperand } from "../graph/mod.ts";
import { add as addKernel } from "../../wgsl/add.ts";

/** The addition. */
export const addOp: OpDefinition<Record<never, never>> = {
  kind: "add",
  lower({ inputs: [a, b], outputs: [y] }, emit): void {
    emit.dispatch(
      addKernel(),
      [denseOperand(a), denseOperand(b), valueOperand(y)],
      (counts) => ({ count: counts[y.rows.name] * y.width }),
    );
  },
};

/**
 * a + b by element; into a value of this shape, if one is given.
 *
 * @throws {TypeError} when the shapes differ.
 */
export function add(trace: Trace, a: Value, b: Value, into?: Value): Value {
  if (a.width !== b.width || a.rows !== b.rows) {
    throw new TypeError(
      `add takes two values of one shape: [${a.rows.name}, ${a.width}] and [${b.rows.name}, ${b.width}]`,
    );
  }
  const y = into ?? trace.value("add", a.rows, a.width);
  trace.append(addOp, [a, b], [y], {});
  return y;
}
