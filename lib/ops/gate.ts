// Gates of linear attention: decays and strengths of writes, from projections.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { gate as gateKernel, type GateKind } from "../../wgsl/gate.ts";
import { scaleHeads as scaleHeadsKernel } from "../../wgsl/scale_heads.ts";
import { constantTable } from "./constant_table.ts";

export type { GateKind } from "../../wgsl/gate.ts";

/** Arguments of {@linkcode gate}. */
export interface GateOptions {
  /** What is made of the numbers. */
  readonly kind: GateKind;
  /** Divides the logarithm of `log-sigmoid`. Default: 1. */
  readonly scale?: number;
  /** Rates by column, for `state-space`: exp(A_log), positive. Default: 1. */
  readonly rates?: readonly number[];
  /** Added before, by column, with `softplus` and `state-space`. Default: 0. */
  readonly biases?: readonly number[];
}

interface GateAttributes {
  readonly kind: GateKind;
  readonly scale: number;
  readonly constants?: string;
}

const gateOp: OpDefinition<GateAttributes> = {
  kind: "gate",
  takesViews: true,
  lower({ inputs: [x], outputs: [y], attributes: { kind, scale, constants } }, emit): void {
    const { stride, offset } = placementOf(x);
    emit.dispatch(
      gateKernel(kind),
      [valueOperand(x), ...(constants === undefined ? [] : [resource(constants)]), valueOperand(y)],
      (counts) => ({ rows: counts[y.rows.name], width: y.width, stride, offset, scale }),
    );
  },
};

/**
 * Gates [rows, width] by element, of the width of `x`.
 *
 * @throws {RangeError} when rates or biases are not one a column, or a rate is not positive.
 */
export function gate(trace: Trace, x: Value, options: GateOptions): Value {
  const { kind, scale = 1 } = options;
  const rates = options.rates ?? new Array<number>(x.width).fill(1);
  const biases = options.biases ?? new Array<number>(x.width).fill(0);
  for (const [name, numbers] of Object.entries({ rates, biases })) {
    if (numbers.length !== x.width || !numbers.every(Number.isFinite)) {
      throw new RangeError(
        `A gate of ${x.width} columns takes as many finite ${name}: received ${numbers.length}`,
      );
    }
  }
  if (!rates.every((rate) => rate > 0)) {
    throw new RangeError(`Rates of a gate must be positive: current values are ${rates.join(", ")}`);
  }
  const y = trace.value("gate", x.rows, x.width);
  if (kind === "softplus" || kind === "state-space") {
    const constants = constantTable(trace, "gate", [...rates, ...biases]);
    trace.append(gateOp, [x], [y], { kind, scale, constants });
  } else trace.append(gateOp, [x], [y], { kind, scale });
  return y;
}

const scaleHeadsOp: OpDefinition<Record<never, never>> = {
  kind: "scaleHeads",
  takesViews: true,
  lower({ inputs: [x, factor], outputs: [y] }, emit): void {
    const { stride, offset } = placementOf(x);
    const heads = factor.width;
    emit.dispatch(
      scaleHeadsKernel(),
      [valueOperand(x), valueOperand(factor), valueOperand(y)],
      (counts) => ({ rows: counts[y.rows.name], heads, headSize: y.width / heads, stride, offset }),
    );
  },
};

/**
 * Heads of `x` [rows, heads · headSize], each times its number in `factor` [rows, heads].
 *
 * @throws {TypeError} when the widths do not fit.
 */
export function scaleHeads(trace: Trace, x: Value, factor: Value): Value {
  if (x.width % factor.width !== 0 || factor.view) {
    throw new TypeError(`scaleHeads takes a number for each head: widths are ${x.width} and ${factor.width}`);
  }
  const y = trace.value("scaled", x.rows, x.width);
  trace.append(scaleHeadsOp, [x, factor], [y], {});
  return y;
}
