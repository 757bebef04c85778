// The delta rule, plain and gated: what a key had stored is replaced by its new value. Row by row for few rows, by chunks for
// many.

import {
  type Emit,
  type OpDefinition,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { linearDeltaGates } from "../../wgsl/linear_delta_gates.ts";
import { linearDeltaOutput } from "../../wgsl/linear_delta_output.ts";
import { linearDeltaRecurrent } from "../../wgsl/linear_delta_recurrent.ts";
import { linearDeltaScan } from "../../wgsl/linear_delta_scan.ts";
import { linearDeltaSolve } from "../../wgsl/linear_delta_solve.ts";
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

/** Inputs of the delta rule, all with the same rows. */
export interface DeltaRuleInputs {
  /** Queries [rows, heads · keySize]. */
  readonly q: Value;
  /** Keys [rows, kvHeads · keySize]; by custom of length 1. */
  readonly k: Value;
  /** Values [rows, kvHeads · valueSize]. */
  readonly v: Value;
  /** How much of what a key had stored is replaced [rows, kvHeads], from 0 to 2. */
  readonly beta: Value;
  /** Natural logs of the decays before each row [rows, kvHeads], at most 0. Default: no decay. */
  readonly logDecay?: Value;
}

interface DeltaRuleAttributes {
  readonly heads: StateHeads;
  readonly state: RecurrentState;
}

const deltaRuleOp: OpDefinition<DeltaRuleAttributes> = {
  kind: "deltaRule",
  takesViews: true,
  lower(operation, emit): void {
    if (isRecurrent(emit.target, operation.outputs[0].rows)) lowerRecurrent(operation, emit);
    else lowerChunks(operation, emit);
  },
};

type DeltaRuleOperation = Parameters<typeof deltaRuleOp.lower>[0];

function lowerRecurrent(
  { inputs, outputs: [o], attributes: { heads, state } }: DeltaRuleOperation,
  emit: Emit,
): void {
  const [q, k, v, beta, logDecay] = inputs;
  const { kvHeads, keySize, valueSize } = heads;
  const { rows } = o;
  const numbers = { ...heads, ...placements({ q, k, v, beta, decay: logDecay }) };
  let gates = beta;
  if (logDecay) {
    gates = emit.trace.value("gates", rows, 2 * kvHeads);
    emit.dispatch(
      linearDeltaGates(),
      [valueOperand(beta), valueOperand(logDecay), valueOperand(gates)],
      (counts) => ({ ...numbers, rows: counts[rows.name] }),
    );
  }
  const { table, items } = recurrentItems(emit.target, rows);
  emit.dispatch(
    linearDeltaRecurrent({ keySize, valueSize, decay: logDecay !== undefined, table }),
    [
      ...[q, k, v, gates].map(valueOperand),
      table === "rows" ? rowTable(rows) : resource(spansName(rows)),
      resource("states"),
      resource(state.name),
      valueOperand(o),
    ],
    (counts) => ({ ...numbers, items: items(counts) }),
  );
}

function lowerChunks(
  { inputs, outputs: [o], attributes: { heads, state } }: DeltaRuleOperation,
  emit: Emit,
): void {
  const [q, k, v, beta, logDecay] = inputs;
  const { kvHeads, keySize, valueSize } = heads;
  const { rows } = o;
  const { trace, target } = emit;
  const decay = logDecay !== undefined;
  const spec = { keySize, valueSize, decay };
  const numbers = {
    ...heads,
    ...placements({ q, k, v, beta, decay: logDecay }),
    sequences: target.sequences,
  };
  const tiles = resource(tilesName(rows));
  const logs = decay ? [valueOperand(logDecay)] : [];
  const solved = trace.value("solved", rows, kvHeads * (keySize + valueSize));
  const gates = decay ? [valueOperand(trace.value("gates", rows, 2 * kvHeads))] : [];
  emit.dispatch(
    linearDeltaSolve({ decay }),
    [...[k, v, beta].map(valueOperand), ...logs, tiles, valueOperand(solved), ...gates],
    (counts) => ({ ...numbers, tiles: counts[tilesName(rows)] }),
  );
  emit.dispatch(
    linearDeltaScan(spec),
    [
      ...[q, k, solved].map(valueOperand),
      ...gates,
      resource(spansName(rows)),
      resource("states"),
      resource(state.name),
      valueOperand(o),
    ],
    () => numbers,
  );
  emit.dispatch(
    linearDeltaOutput(spec),
    [...[q, k].map(valueOperand), ...logs, valueOperand(solved), tiles, valueOperand(o)],
    (counts) => ({ ...numbers, tiles: counts[tilesName(rows)] }),
  );
}

/**
 * Numbers of the state of a sequence: [kvHeads][keySize][valueSize].
 *
 * @throws {RangeError} when a size does not fit.
 */
export function deltaStateWords(heads: StateHeads): number {
  return stateHeadWords(heads);
}

/**
 * The delta rule (arXiv:2102.11174, gated: arXiv:2412.06464) by KV head, over the rows of each sequence in order, whatever
 * their positions:
 *
 *     S = exp(logDecay) S     u = beta (v - Sᵀ k)     S = S + k uᵀ     o = Sᵀ q
 *
 * Returns o [rows, heads · valueSize]; query head h reads the state of KV head ⌊h / (heads / kvHeads)⌋. Continues from `state`
 * and leaves it behind the last row, but not that of a sequence that is done.
 *
 * @throws {RangeError} when key or value size does not fit.
 * @throws {TypeError} when heads, widths, rows or the state do not fit together.
 */
export function deltaRule(
  trace: Trace,
  { q, k, v, beta, logDecay }: DeltaRuleInputs,
  heads: StateHeads,
  state: RecurrentState,
): Value {
  checkStateHeads(
    "deltaRule",
    heads,
    state,
    { q, k, v },
    { beta, ...(logDecay ? { logDecay } : {}) },
    heads.kvHeads,
  );
  const o = trace.value("deltaRule", q.rows, heads.heads * heads.valueSize);
  trace.append(deltaRuleOp, [q, k, v, beta, ...(logDecay ? [logDecay] : [])], [o], { heads, state });
  return o;
}
