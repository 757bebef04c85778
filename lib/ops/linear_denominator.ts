// The denominator of linear attention, queries times the sum of keys, and the division by it.

import {
  denseOperand,
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { divideHeads as divideHeadsKernel } from "../../wgsl/divide_heads.ts";
import { checkLinearSizes } from "../../wgsl/linear_decay.ts";
import { linearDenominatorOutput } from "../../wgsl/linear_denominator_output.ts";
import { linearDenominatorRecurrent } from "../../wgsl/linear_denominator_recurrent.ts";
import { linearDenominatorScan, linearDenominatorTiles } from "../../wgsl/linear_denominator_tiles.ts";
import {
  checkGroups,
  checkHeads,
  checkRows,
  checkState,
  isAligned,
  isRecurrent,
  tileRows,
} from "./linear_shapes.ts";
import type { RecurrentState } from "./recurrent_state.ts";
import { rowTable, tilesName } from "./row_tables.ts";

/** Shape of {@linkcode linearDenominator}. */
export interface LinearDenominatorSpec {
  /** Query heads. */
  readonly heads: number;
  /** Key heads, a divisor of `heads`. */
  readonly kvHeads: number;
  /** Components of a head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Whether a row sees only itself and earlier ones; else it sees all rows of its sequence in the step. */
  readonly causal: boolean;
}

interface DenominatorAttributes {
  readonly spec: LinearDenominatorSpec;
  readonly state?: RecurrentState;
}

const linearDenominatorOp: OpDefinition<DenominatorAttributes> = {
  kind: "linearDenominator",
  takesViews: true,
  lower({ inputs: [q, k], outputs: [y], attributes: { spec, state } }, emit): void {
    const { heads, kvHeads, keySize, causal } = spec;
    const { trace, target } = emit;
    const [queries, keys] = [q, k].map(placementOf);
    const numbers = {
      heads,
      kvHeads,
      qStride: queries.stride,
      qOffset: queries.offset,
      kStride: keys.stride,
      kOffset: keys.offset,
    };
    const aligned = isAligned([q, k]);
    if (causal && isRecurrent(target, q.rows)) {
      const { subgroups } = target.features;
      emit.dispatch(
        linearDenominatorRecurrent({ keySize, groupSize: heads / kvHeads, aligned, subgroups }),
        [
          valueOperand(q),
          valueOperand(k),
          rowTable(q.rows),
          resource("states"),
          resource(state!.name),
          valueOperand(y),
        ],
        (counts) => ({ ...numbers, rows: counts[q.rows.name] }),
      );
      return;
    }
    const rows = tileRows(trace, q.rows);
    const tiles = resource(tilesName(q.rows));
    const sums = valueOperand(trace.value("tileSums", rows, kvHeads * keySize));
    emit.dispatch(
      linearDenominatorTiles({ keySize, aligned: isAligned([k]) }),
      [valueOperand(k), tiles, sums],
      (counts) => ({ ...numbers, tiles: counts[rows.name] }),
    );
    emit.dispatch(
      linearDenominatorScan({ keySize, causal }),
      [tiles, sums, ...(causal ? [resource("states"), resource(state!.name)] : [])],
      (counts) => ({ tiles: counts[rows.name], sequences: target.sequences, kvHeads }),
    );
    emit.dispatch(
      linearDenominatorOutput({ keySize, causal, aligned: causal ? aligned : isAligned([q]) }),
      [valueOperand(q), ...(causal ? [valueOperand(k)] : []), tiles, sums, valueOperand(y)],
      (counts) => ({ ...numbers, tiles: counts[rows.name] }),
    );
  },
};

/** Numbers that {@linkcode linearDenominator} keeps of a sequence, a multiple of 4. */
export function denominatorStateWords(
  { kvHeads, keySize }: Pick<LinearDenominatorSpec, "kvHeads" | "keySize">,
): number {
  return kvHeads * keySize;
}

/**
 * den_t = q_t · Σ over s ≤ t of k_s by head, without decay: [rows, heads]. The sum goes from step to step in `state`, made for
 * {@linkcode denominatorStateWords}.
 *
 * @throws {TypeError} when widths, rows or state do not fit.
 * @throws {RangeError} when the size is out of its range.
 */
export function linearDenominator(
  trace: Trace,
  inputs: { readonly q: Value; readonly k: Value },
  spec: LinearDenominatorSpec,
  state?: RecurrentState,
): Value {
  const { q, k } = inputs;
  const { heads, kvHeads, keySize, causal } = spec;
  const op = "linearDenominator";
  checkLinearSizes({ keySize });
  checkGroups(op, heads, kvHeads);
  checkHeads(op, "queries", q, heads, keySize);
  checkHeads(op, "keys", k, kvHeads, keySize);
  checkRows(op, [q, k]);
  checkState(op, trace, causal, denominatorStateWords(spec), state);
  const y = trace.value("denominators", q.rows, heads);
  trace.append(linearDenominatorOp, [q, k], [y], { spec, ...(causal && state ? { state } : {}) });
  return y;
}

/** Arguments of {@linkcode divideHeads}. */
export interface DivideHeadsOptions {
  /** Heads in a row. */
  readonly heads: number;
  /** Added to the denominators. Default: 0. */
  readonly epsilon?: number;
  /** Least denominator. Default: none. */
  readonly clamp?: number;
}

const divideHeadsOp: OpDefinition<DivideHeadsOptions> = {
  kind: "divideHeads",
  takesViews: true,
  lower({ inputs: [x, denominators], outputs: [y], attributes: { heads, epsilon = 0, clamp } }, emit): void {
    const { stride, offset } = placementOf(x);
    emit.dispatch(
      divideHeadsKernel({ clamped: clamp !== undefined }),
      [valueOperand(x), denseOperand(denominators), valueOperand(y)],
      (counts) => ({
        rows: counts[x.rows.name],
        heads,
        size: x.width / heads,
        stride,
        offset,
        epsilon,
        least: clamp ?? 0,
      }),
    );
  },
};

/**
 * x / (denominator + epsilon) by head, or x / max(denominator + epsilon, clamp): [rows, width of x].
 *
 * @throws {TypeError} when widths or rows do not fit.
 */
export function divideHeads(trace: Trace, x: Value, denominators: Value, options: DivideHeadsOptions): Value {
  const { heads } = options;
  checkHeads("divideHeads", "denominators", denominators, heads, 1);
  checkHeads("divideHeads", "x", x, heads, Math.ceil(x.width / heads));
  checkRows("divideHeads", [x, denominators]);
  const y = trace.value("divided", x.rows, x.width);
  trace.append(divideHeadsOp, [x, denominators], [y], options);
  return y;
}
