// The product of a gated linear unit: activation(gate) · up (Dauphin et al. 2017; SwiGLU: Shazeer 2020).

import { type OpDefinition, placementOf, type Trace, type Value, valueOperand } from "../graph/mod.ts";
import type { Activation } from "../../wgsl/activations.ts";
import { glu as gluKernel } from "../../wgsl/glu.ts";

export type { Activation };

/** Arguments of the product. */
export interface GluAttributes {
  /** What is done with the gate. */
  readonly activation: Activation;
}

/** The product. Inputs: gate and up. */
export const gluOp: OpDefinition<GluAttributes> = {
  kind: "glu",
  takesViews: true,
  lower({ inputs: [gate, up], outputs: [y], attributes: { activation } }, emit): void {
    const a = placementOf(gate);
    const b = placementOf(up);
    emit.dispatch(
      gluKernel(activation),
      [valueOperand(gate), valueOperand(up), valueOperand(y)],
      (counts) => ({
        rows: counts[y.rows.name],
        width: y.width,
        gateStride: a.stride,
        gateOffset: a.offset,
        upStride: b.stride,
        upOffset: b.offset,
      }),
    );
  },
};

function product(trace: Trace, name: string, gate: Value, up: Value, activation: Activation): Value {
  if (gate.width !== up.width || gate.rows !== up.rows) {
    throw new TypeError(
      `${name} takes two values of one shape: [${gate.rows.name}, ${gate.width}] and [${up.rows.name}, ${up.width}]`,
    );
  }
  const y = trace.value(name, gate.rows, gate.width);
  trace.append(gluOp, [gate, up], [y], { activation });
  return y;
}

/**
 * activation(gate) · up by element. Where both come from one linear of few rows, it is computed by that.
 *
 * @throws {TypeError} when the two differ in width or rows.
 */
export function glu(trace: Trace, gate: Value, up: Value, activation: Activation): Value {
  return product(trace, "glu", gate, up, activation);
}

/**
 * a · activation(gate) by element: an output gate.
 *
 * @throws {TypeError} when the two differ in width or rows.
 */
export function multiply(trace: Trace, a: Value, gate: Value, activation: Activation = "identity"): Value {
  return product(trace, "multiply", gate, a, activation);
}
