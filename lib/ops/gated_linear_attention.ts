// Gated linear attention: a state whose every key component decays on its own. Row by row for few rows, by chunks for many.

import {
  type Emit,
  type OpDefinition,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { linearGlaDecay } from "../../wgsl/linear_gla_decay.ts";
import { linearGlaOutput } from "../../wgsl/linear_gla_output.ts";
import { linearGlaRecurrent } from "../../wgsl/linear_gla_recurrent.ts";
import { linearGlaScan } from "../../wgsl/linear_gla_scan.ts";
import type { RecurrentState } from "./recurrent_state.ts";
import { rowTable, spansName, tilesName } from "./row_tables.ts";
import {
  checkStateHeads,
  placements,
  recurrentItems,
  type StateHeads,
  stateHeadWords,
} from "./state_heads.ts";
import { isRecurrent } from "./linear_shapes.ts";

/** Inputs of gated linear attention, all with the same rows. */
export interface GatedLinearAttentionInputs {
  /** Queries [rows, heads · keySize]. */
  readonly q: Value;
  /** Keys [rows, kvHeads · keySize]. */
  readonly k: Value;
  /** Values [rows, kvHeads · valueSize]. */
  readonly v: Value;
  /** Natural logs of the decays before each row [rows, kvHeads · keySize], at most 0. */
  readonly logDecay: Value;
}

interface GatedLinearAttentionAttributes {
  readonly heads: StateHeads;
  readonly state: RecurrentState;
}

const gatedLinearAttentionOp: OpDefinition<GatedLinearAttentionAttributes> = {
  kind: "gatedLinearAttention",
  takesViews: true,
  lower(operation, emit): void {
    if (isRecurrent(emit.target, operation.outputs[0].rows)) lowerRecurrent(operation, emit);
    else lowerChunks(operation, emit);
  },
};

type GlaOperation = Parameters<typeof gatedLinearAttentionOp.lower>[0];

function lowerRecurrent(
  { inputs, outputs: [o], attributes: { heads, state } }: GlaOperation,
  emit: Emit,
): void {
  const [q, k, v, decay] = inputs;
  const { keySize, valueSize } = heads;
  const { rows } = o;
  const { table, items } = recurrentItems(emit.target, rows);
  const numbers = { ...heads, ...placements({ q, k, v, decay }) };
  emit.dispatch(
    linearGlaRecurrent({ keySize, valueSize, table }),
    [
      ...inputs.map(valueOperand),
      table === "rows" ? rowTable(rows) : resource(spansName(rows)),
      resource("states"),
      resource(state.name),
      valueOperand(o),
    ],
    (counts) => ({ ...numbers, items: items(counts) }),
  );
}

function lowerChunks({ inputs, outputs: [o], attributes: { heads, state } }: GlaOperation, emit: Emit): void {
  const [q, k, v, decay] = inputs;
  const { keySize, valueSize } = heads;
  const { rows } = o;
  const { trace, target } = emit;
  const numbers = {
    ...heads,
    ...placements({ q, k, v, decay }),
    width: k.width,
    sequences: target.sequences,
  };
  const tiles = resource(tilesName(rows));
  const decayed = trace.value("decayed", rows, 2 * k.width);
  emit.dispatch(
    linearGlaDecay(),
    [valueOperand(k), valueOperand(decay), tiles, valueOperand(decayed)],
    (counts) => ({ ...numbers, tiles: counts[tilesName(rows)] }),
  );
  emit.dispatch(
    linearGlaScan({ keySize, valueSize }),
    [
      ...[q, v, decayed].map(valueOperand),
      resource(spansName(rows)),
      resource("states"),
      resource(state.name),
      valueOperand(o),
    ],
    () => numbers,
  );
  emit.dispatch(
    linearGlaOutput({ keySize, valueSize }),
    [...[q, k, decay, v].map(valueOperand), tiles, valueOperand(o)],
    (counts) => ({ ...numbers, tiles: counts[tilesName(rows)] }),
  );
}

/**
 * Numbers of the state of a sequence: [kvHeads][keySize][valueSize].
 *
 * @throws {RangeError} when a size does not fit.
 */
export function glaStateWords(heads: StateHeads): number {
  return stateHeadWords(heads);
}

/**
 * Gated linear attention (arXiv:2312.06635) by KV head, over the rows of each sequence in order, whatever their positions:
 *
 *     S = diag(exp(logDecay)) S + k vᵀ     o = Sᵀ q
 *
 * Returns o [rows, heads · valueSize]; query head h reads the state of KV head ⌊h / (heads / kvHeads)⌋. Continues from `state`
 * and leaves it behind the last row, but not that of a sequence that is done.
 *
 * @throws {RangeError} when key or value size does not fit.
 * @throws {TypeError} when heads, widths, rows or the state do not fit together.
 */
export function gatedLinearAttention(
  trace: Trace,
  { q, k, v, logDecay }: GatedLinearAttentionInputs,
  heads: StateHeads,
  state: RecurrentState,
): Value {
  checkStateHeads(
    "gatedLinearAttention",
    heads,
    state,
    { q, k, v },
    { logDecay },
    heads.kvHeads * heads.keySize,
  );
  const o = trace.value("gatedLinearAttention", q.rows, heads.heads * heads.valueSize);
  trace.append(gatedLinearAttentionOp, [q, k, v, logDecay], [o], { heads, state });
  return o;
}
