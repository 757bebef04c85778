// Block-diagonal attention (TransNormer, arXiv:2210.10340): every row sees its own block of positions.

import {
  type OpDefinition,
  type Operand,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { checkDiag, diagAttention as attend, type DiagScore } from "../../wgsl/diag_attention.ts";
import { diagDecode } from "../../wgsl/diag_decode.ts";
import { diagStateWords, diagStore } from "../../wgsl/diag_store.ts";
import type { RecurrentState } from "./recurrent_state.ts";
import { rowTable, spansName, tilesName } from "./row_tables.ts";
import { vectorRange } from "./vector_range.ts";

export { type DiagScore, diagStateWords };

/** Settings of {@linkcode diagAttention}. */
export interface DiagAttentionOptions {
  /** Query heads, a multiple of `kvHeads`. */
  readonly heads: number;
  /** Key/value heads. */
  readonly kvHeads: number;
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Positions of a block, from 1 to 1024. */
  readonly block: number;
  /** `softmax` over the block, or `relu` without any normalisation. */
  readonly score: DiagScore;
  /** Factor of the scores. */
  readonly scale: number;
  /** Whether rows see no later ones. */
  readonly causal: boolean;
  /** Token whose rows are no keys. Default: none. */
  readonly padToken?: number;
}

interface DiagAttributes {
  readonly options: DiagAttentionOptions;
  readonly state?: RecurrentState;
}

const diagAttentionOp: OpDefinition<DiagAttributes> = {
  kind: "diagAttention",
  takesViews: true,
  lower({ inputs: [q, k, v], outputs: [y], attributes: { options, state } }, emit): void {
    const { heads, kvHeads, headSize, block, score, scale, causal, padToken } = options;
    const padded = padToken !== undefined;
    const many = emit.target.phase === "prefill";
    const [queries, keys, values] = [q, k, v].map(vectorRange);
    const numbers = {
      heads,
      kvHeads,
      qStride: queries.stride,
      qOffset: queries.offset,
      kStride: keys.stride,
      kOffset: keys.offset,
      vStride: values.stride,
      vOffset: values.offset,
      outStride: y.width,
      padToken: padToken ?? 0,
      scale,
    };
    const stateOperands: Operand[] = state ? [resource(state.name)] : [];
    const spans: Operand[] = many ? [resource(spansName(q.rows))] : [];
    const projections = [q, k, v].map(valueOperand);
    if (many) {
      emit.dispatch(
        attend({ headSize, block, score, causal, padded }),
        [
          ...projections,
          rowTable(q.rows),
          ...spans,
          resource(tilesName(q.rows)),
          ...stateOperands,
          valueOperand(y),
        ],
        (counts) => ({ ...numbers, tiles: counts[tilesName(q.rows)] }),
      );
    } else {
      emit.dispatch(
        diagDecode({ headSize, block, score, padded }),
        [...projections, rowTable(q.rows), ...stateOperands, valueOperand(y)],
        (counts) => ({ ...numbers, rows: counts[q.rows.name] }),
      );
    }
    if (!state) return;
    // After the attention, which reads what this overwrites.
    emit.dispatch(
      diagStore({ headSize, block, many, padded }),
      [valueOperand(k), valueOperand(v), rowTable(q.rows), ...spans, resource("states"), ...stateOperands],
      (counts) => ({ ...numbers, rows: counts[q.rows.name] }),
    );
  },
};

/**
 * softmax(scale · q Kᵀ) V or relu(scale · q Kᵀ) V by head over the keys of the row's block: those whose original position
 * is in the same [b · block, (b + 1) · block), when `causal` not later than the row's. `q` is [rows, heads · headSize],
 * `k` and `v` are [rows, kvHeads · headSize], rotated already; the result is as wide as `q`. A row that sees no key gets 0.
 *
 * Causal attention keeps the newest block in `state`, which needs {@linkcode diagStateWords} numbers, and goes on from
 * there. Without `causal` there is no state: all rows of a sequence come in one step.
 *
 * @throws {TypeError} when heads or widths do not fit, the rows differ, or there is a state where none is needed or none
 * where one is.
 * @throws {RangeError} when the head size, the block or the state's size does not fit.
 */
export function diagAttention(
  trace: Trace,
  projections: { readonly q: Value; readonly k: Value; readonly v: Value },
  options: DiagAttentionOptions,
  state?: RecurrentState,
): Value {
  const { q, k, v } = projections;
  const { heads, kvHeads, headSize, causal } = options;
  checkDiag(options);
  if (!Number.isInteger(heads / kvHeads)) {
    throw new TypeError(`heads must be a multiple of kvHeads: they are ${heads} and ${kvHeads}`);
  }
  if (q.width !== heads * headSize || k.width !== kvHeads * headSize || v.width !== k.width) {
    throw new TypeError(
      `Queries need ${heads} heads of ${headSize}, keys and values ${kvHeads}: widths are ${q.width}, ${k.width} and ${v.width}`,
    );
  }
  if (k.rows !== q.rows || v.rows !== q.rows) {
    throw new TypeError(
      `Queries, keys and values need the same rows: they have ${q.rows.name}, ${k.rows.name} and ${v.rows.name}`,
    );
  }
  if (causal !== (state !== undefined)) {
    throw new TypeError(
      causal
        ? "Causal block attention keeps the newest block between steps: give it a recurrent state"
        : "Bidirectional block attention keeps nothing between steps: give it no recurrent state",
    );
  }
  if (!causal && trace.target.phase === "decode") {
    throw new TypeError(
      "Bidirectional block attention needs all rows of a sequence in one step: it cannot decode token by token",
    );
  }
  if (state && state.words !== diagStateWords(options)) {
    throw new RangeError(
      `The state of block attention takes ${
        diagStateWords(options)
      } numbers: current value is ${state.words}`,
    );
  }
  const y = trace.value("diagAttention", q.rows, q.width);
  trace.append(diagAttentionOp, [q, k, v], [y], { options, ...(state ? { state } : {}) });
  return y;
}
