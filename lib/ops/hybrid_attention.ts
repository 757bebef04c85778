// Softmax attention over a window and linear attention over everything older, in one normaliser (LoLCATs,
// arXiv:2410.10254).

import {
  type Emit,
  type OpDefinition,
  type Operation,
  resource,
  type Rows,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { hybridAttention as attend } from "../../wgsl/hybrid_attention.ts";
import { hybridDecode } from "../../wgsl/hybrid_decode.ts";
import { hybridDecodeStore } from "../../wgsl/hybrid_decode_store.ts";
import { checkHybrid, hybridLayout, type HybridSizes, hybridStateWords } from "../../wgsl/hybrid_layout.ts";
import { hybridPack } from "../../wgsl/hybrid_pack.ts";
import { hybridScan } from "../../wgsl/hybrid_scan.ts";
import { hybridStore } from "../../wgsl/hybrid_store.ts";
import type { RecurrentState } from "./recurrent_state.ts";
import { rowTable, spansName, tilesName } from "./row_tables.ts";
import { vectorRange } from "./vector_range.ts";

export { hybridStateWords };

/** Settings of {@linkcode hybridAttention}. */
export interface HybridAttentionOptions extends HybridSizes {
  /** Query heads, a multiple of `kvHeads`. */
  readonly heads: number;
  /** Key/value heads. */
  readonly kvHeads: number;
  /** Factor of the scores of softmax. */
  readonly scale: number;
  /** Factor of softmax's weights beside those of linear attention, over 0 and up to 1. */
  readonly gate: number;
}

/** What {@linkcode hybridAttention} reads, all of the same rows. */
export interface HybridInputs {
  /** Queries [rows, heads · headSize]. */
  readonly q: Value;
  /** Keys [rows, kvHeads · headSize]. */
  readonly k: Value;
  /** Values [rows, kvHeads · headSize]. */
  readonly v: Value;
  /** Features of the queries [rows, heads · featureSize]. */
  readonly qFeatures: Value;
  /** Features of the keys [rows, kvHeads · featureSize]. */
  readonly kFeatures: Value;
}

interface HybridAttributes {
  readonly options: HybridAttentionOptions;
  readonly state: RecurrentState;
}

/** Most rows of a tile, as the step's table of tiles has it. */
const TILE_ROWS = 64;

const hybridAttentionOp: OpDefinition<HybridAttributes> = {
  kind: "hybridAttention",
  takesViews: true,
  lower(operation, emit): void {
    if (emit.target.phase === "prefill") lowerPrefill(operation, emit);
    else lowerDecode(operation, emit);
  },
};

function lowerPrefill(operation: Operation<HybridAttributes>, { target, trace, dispatch }: Emit): void {
  const { inputs: [q, k, v, qFeatures, kFeatures], outputs: [y], attributes: { options, state } } = operation;
  const { rows } = q;
  const { heads, kvHeads, scale, gate, window } = options;
  const { sequences } = target;
  const { entry, sums } = hybridLayout(options);
  const [queries, keys, values, features, keyFeatures] = [q, k, v, qFeatures, kFeatures].map(vectorRange);
  const [spans, tiles] = [resource(spansName(rows)), resource(tilesName(rows))];
  const rowsOf = (name: string, capacity: number): Rows => ({ name, capacity, thin: false });
  const packed = trace.value(
    "packed",
    rowsOf(`${rows.name}.entries`, rows.capacity + sequences * window),
    4 * kvHeads * entry,
  );
  const prefixes = trace.value(
    "prefixes",
    rowsOf(tilesName(rows), Math.ceil(rows.capacity / TILE_ROWS) + sequences),
    4 * kvHeads * sums,
  );
  dispatch(
    hybridPack(options),
    [
      ...[k, kFeatures, v].map(valueOperand),
      rowTable(rows),
      spans,
      resource(state.name),
      valueOperand(packed),
    ],
    (counts) => ({
      rows: counts[rows.name],
      sequences,
      kvHeads,
      kStride: keys.stride,
      kOffset: keys.offset,
      fStride: keyFeatures.stride,
      fOffset: keyFeatures.offset,
      vStride: values.stride,
      vOffset: values.offset,
    }),
  );
  dispatch(
    hybridScan(options),
    [
      valueOperand(packed),
      rowTable(rows),
      spans,
      tiles,
      resource("states"),
      resource(state.name),
      valueOperand(prefixes),
    ],
    (counts) => ({ tiles: counts[tilesName(rows)], sequences, kvHeads }),
  );
  dispatch(
    attend(options),
    [
      ...[q, qFeatures, packed, prefixes].map(valueOperand),
      rowTable(rows),
      spans,
      tiles,
      valueOperand(y),
    ],
    (counts) => ({
      tiles: counts[tilesName(rows)],
      sequences,
      heads,
      kvHeads,
      qStride: queries.stride,
      qOffset: queries.offset,
      fStride: features.stride,
      fOffset: features.offset,
      outStride: y.width,
      scale,
      gate,
    }),
  );
  dispatch(
    hybridStore(options),
    [valueOperand(packed), rowTable(rows), spans, resource("states"), resource(state.name)],
    () => ({ sequences, kvHeads }),
  );
}

function lowerDecode(operation: Operation<HybridAttributes>, { dispatch }: Emit): void {
  const { inputs: [q, k, v, qFeatures, kFeatures], outputs: [y], attributes: { options, state } } = operation;
  const { rows } = q;
  const { heads, kvHeads, scale, gate } = options;
  const [queries, keys, values, features, keyFeatures] = [q, k, v, qFeatures, kFeatures].map(vectorRange);
  const shared = {
    kvHeads,
    kStride: keys.stride,
    kOffset: keys.offset,
    vStride: values.stride,
    vOffset: values.offset,
  };
  dispatch(
    hybridDecode(options),
    [...[q, qFeatures, k, v].map(valueOperand), rowTable(rows), resource(state.name), valueOperand(y)],
    (counts) => ({
      ...shared,
      rows: counts[rows.name],
      heads,
      qStride: queries.stride,
      qOffset: queries.offset,
      qfStride: features.stride,
      qfOffset: features.offset,
      outStride: y.width,
      scale,
      gate,
    }),
  );
  // After the attention, which reads what this overwrites.
  dispatch(
    hybridDecodeStore(options),
    [...[k, kFeatures, v].map(valueOperand), rowTable(rows), resource("states"), resource(state.name)],
    (counts) => ({
      ...shared,
      rows: counts[rows.name],
      fStride: keyFeatures.stride,
      fOffset: keyFeatures.offset,
    }),
  );
}

/**
 * By head, for a row at position p with query q and query features f:
 *
 *     y = (gate · Σ exp(s_j - m) v_j + Σ (f · f_j) v_j) / (gate · Σ exp(s_j - m) + Σ f · f_j)
 *
 * The sums of exp go over the window, positions (p - window, p], where s_j = scale · q · k_j and m is the greatest of them;
 * the others go over all older positions. The result is [rows, heads · headSize]. Sums over what is older, and the
 * window, stand in `state`, which needs {@linkcode hybridStateWords} numbers whatever the length.
 *
 * The linear part is not normalised apart: features whose products are negative may bring the divisor near 0.
 *
 * @throws {TypeError} when heads or widths do not fit, or the rows differ.
 * @throws {RangeError} when the head size, the feature size, the window, the gate or the state's size does not fit.
 */
export function hybridAttention(
  trace: Trace,
  inputs: HybridInputs,
  options: HybridAttentionOptions,
  state: RecurrentState,
): Value {
  const { heads, kvHeads, headSize, featureSize, gate } = options;
  checkHybrid(options);
  if (!(gate > 0 && gate <= 1)) {
    throw new RangeError(`gate must be over 0 and up to 1: current value is ${gate}`);
  }
  if (!Number.isInteger(heads / kvHeads)) {
    throw new TypeError(`heads must be a multiple of kvHeads: they are ${heads} and ${kvHeads}`);
  }
  const widths: Readonly<Record<keyof HybridInputs, number>> = {
    q: heads * headSize,
    k: kvHeads * headSize,
    v: kvHeads * headSize,
    qFeatures: heads * featureSize,
    kFeatures: kvHeads * featureSize,
  };
  for (const [name, width] of Object.entries(widths)) {
    const value = inputs[name as keyof HybridInputs];
    if (value.width !== width) {
      throw new TypeError(`${name} of hybrid attention needs width ${width}: it is ${value.width}`);
    }
    if (value.rows !== inputs.q.rows) {
      throw new TypeError(
        `All inputs of hybrid attention need the same rows: q has ${inputs.q.rows.name}, ${name} has ${value.rows.name}`,
      );
    }
  }
  if (state.words !== hybridStateWords(options)) {
    throw new RangeError(
      `The state of hybrid attention takes ${
        hybridStateWords(options)
      } numbers: current value is ${state.words}`,
    );
  }
  const { q, k, v, qFeatures, kFeatures } = inputs;
  const y = trace.value("hybridAttention", q.rows, q.width);
  trace.append(hybridAttentionOp, [q, k, v, qFeatures, kFeatures], [y], { options, state });
  return y;
}
