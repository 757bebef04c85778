// SwiGLU: silu(gate) · up (Shazeer 2020).

import { type OpDefinition, placementOf, type Trace, type Value, valueOperand } from "../graph/mod.ts";
import { swiglu as swigluKernel } from "../../wgsl/swiglu.ts";

/** The SwiGLU operation. Inputs: gate and up, which lowering finds side by side in one buffer. */
export const swigluOp: OpDefinition<Record<never, never>> = {
  kind: "swiglu",
  takesViews: true,
  lower({ inputs: [gate, up], outputs: [y] }, emit): void {
    const a = placementOf(gate);
    const b = placementOf(up);
    if (a.root !== b.root || a.offset !== 0 || b.offset !== y.width || a.stride !== 2 * y.width) {
      throw new TypeError(
        "swiglu takes gate and up from one linear: make them adjacent ranges of one weight, gate first, read by nothing else",
      );
    }
    emit.dispatch(
      swigluKernel(),
      [valueOperand(a.root), valueOperand(y)],
      (counts) => ({ rows: counts[y.rows.name], width: y.width }),
    );
  },
};

/**
 * silu(gate) · up by element.
 *
 * @throws {TypeError} when the two differ in width or rows.
 */
export function swiglu(trace: Trace, gate: Value, up: Value): Value {
  if (gate.width !== up.width || gate.rows !== up.rows) {
    throw new TypeError(
      `swiglu takes two values of one shape: [${gate.rows.name}, ${gate.width}] and [${up.rows.name}, ${up.width}]`,
    );
  }
  const y = trace.value("swiglu", gate.rows, gate.width);
  trace.append(swigluOp, [gate, up], [y], {});
  return y;
}
