// How linear attention becomes kernel calls: recurrent for few rows, in chunks for many.

import { formatBytes } from "../gpu/mod.ts";
import {
  type Emit,
  type OpDefinition,
  type Operand,
  type Operation,
  placementOf,
  resource,
  valueOperand,
} from "../graph/mod.ts";
import { linearChunkOutput } from "../../wgsl/linear_chunk_output.ts";
import { linearChunkScan } from "../../wgsl/linear_chunk_scan.ts";
import { linearChunkStates } from "../../wgsl/linear_chunk_states.ts";
import type { LinearDecay } from "../../wgsl/linear_decay.ts";
import { linearRecurrent } from "../../wgsl/linear_recurrent.ts";
import { isAligned, isRecurrent, tileRows } from "./linear_shapes.ts";
import type { RecurrentState } from "./recurrent_state.ts";
import { rowTable, tilesName } from "./row_tables.ts";

/** Shape and decay of linear attention. */
export interface LinearAttentionSpec {
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads, a divisor of `heads`. */
  readonly kvHeads: number;
  /** Components of a query's and a key's head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Components of a value's head, a multiple of 4 up to 256. */
  readonly valueSize: number;
  /** Whether a row sees only itself and earlier ones; else it sees all rows of its sequence in the step. */
  readonly causal: boolean;
  /**
   * What the state is multiplied by from row to row: `none`; `token`: exp of each row's own logarithm; `perHead`: exp of a
   * logarithm a position, not above 0, by KV head, across gaps in the positions too.
   */
  readonly decay: "none" | "token" | { readonly perHead: readonly number[] };
}

/** Arguments of the operation. */
export interface LinearAttributes {
  /** Shape and decay. */
  readonly spec: LinearAttentionSpec;
  /** Where the state stands, if causal. */
  readonly state?: RecurrentState;
  /** Resource name of the slopes. */
  readonly slopes?: string;
}

/** Most bytes of the states of tiles at once: heads that do not fit go after one another. */
const SCRATCH_BYTES = 2 ** 27;

/** The linear attention operation. Inputs: q, k, v, and the logarithms of decays by token. */
export const linearAttentionOp: OpDefinition<LinearAttributes> = {
  kind: "linearAttention",
  takesViews: true,
  lower(operation, emit): void {
    const { inputs: [q], attributes: { spec } } = operation;
    if (spec.causal && isRecurrent(emit.target, q.rows)) lowerRecurrent(operation, emit);
    else lowerChunks(operation, emit);
  },
};

type Linear = Operation<LinearAttributes>;

/** What both forms need of an operation. */
function common({ inputs: [q, k, v, logDecay], attributes: { spec, slopes } }: Linear) {
  const { heads, kvHeads, keySize, valueSize } = spec;
  const [queries, keys, values] = [q, k, v].map(placementOf);
  const decay: LinearDecay = spec.decay === "none" || spec.decay === "token" ? spec.decay : "position";
  const decays: Operand[] = slopes ? [resource(slopes)] : logDecay ? [valueOperand(logDecay)] : [];
  const logs = logDecay ? placementOf(logDecay) : undefined;
  return {
    sizes: { keySize, valueSize },
    decay,
    decays,
    groupSize: heads / kvHeads,
    numbers: {
      heads,
      kvHeads,
      qStride: queries.stride,
      qOffset: queries.offset,
      kStride: keys.stride,
      kOffset: keys.offset,
      vStride: values.stride,
      vOffset: values.offset,
      ...(logs ? { decayStride: logs.stride, decayOffset: logs.offset } : {}),
    },
  };
}

function lowerRecurrent(operation: Linear, emit: Emit): void {
  const { inputs: [q, k, v], outputs: [y], attributes: { state } } = operation;
  const { sizes, decay, decays, groupSize, numbers } = common(operation);
  emit.dispatch(
    linearRecurrent({ ...sizes, groupSize, decay, aligned: isAligned([q, k, v]) }),
    [
      ...[q, k, v].map(valueOperand),
      rowTable(q.rows),
      resource("states"),
      resource(state!.name),
      ...decays,
      valueOperand(y),
    ],
    (counts) => ({ ...numbers, rows: counts[q.rows.name], stateWords: state!.words / 4 }),
  );
}

function lowerChunks(operation: Linear, emit: Emit): void {
  const { inputs: [q, k, v], outputs: [y], attributes: { spec: { kvHeads, causal }, state } } = operation;
  const { sizes, decay, decays, groupSize, numbers } = common(operation);
  const { trace, target } = emit;
  const rows = tileRows(trace, q.rows);
  const headWords = sizes.keySize * sizes.valueSize;
  const limit = Math.min(target.bindingBytes, SCRATCH_BYTES);
  const headBytes = rows.capacity * headWords * 4;
  if (headBytes > limit) {
    throw new RangeError(
      `Linear attention of ${q.rows.capacity} rows keeps ${rows.capacity} states of ${
        formatBytes(headWords * 4)
      } a head, ` +
        `over the limit of ${formatBytes(limit)}: use shorter prompts or fewer sequences at once`,
    );
  }
  // Even ranges of heads: the same kernel calls for all of them.
  const calls = Math.ceil(kvHeads / Math.floor(limit / headBytes));
  const stateHeads = Math.ceil(kvHeads / calls);
  const tileStates = trace.value("tileStates", rows, stateHeads * headWords);
  const tileDecays = decay === "none" ? [] : [valueOperand(trace.value("tileDecays", rows, stateHeads))];
  const tiles = resource(tilesName(q.rows));
  const add = linearChunkStates({ ...sizes, decay, aligned: isAligned([k, v]) });
  const scan = linearChunkScan({ ...sizes, decay, causal });
  const output = linearChunkOutput({ ...sizes, decay, causal, aligned: isAligned(causal ? [q, k, v] : [q]) });
  for (let firstHead = 0; firstHead < kvHeads; firstHead += stateHeads) {
    const range = { firstHead, stateHeads: Math.min(stateHeads, kvHeads - firstHead) };
    emit.dispatch(
      add,
      [
        valueOperand(k),
        valueOperand(v),
        rowTable(q.rows),
        tiles,
        ...decays,
        valueOperand(tileStates),
        ...tileDecays,
      ],
      (counts) => ({ ...numbers, tiles: counts[rows.name], firstHead, heads: range.stateHeads }),
    );
    emit.dispatch(
      scan,
      [
        tiles,
        valueOperand(tileStates),
        ...(causal ? [rowTable(q.rows), resource("states"), resource(state!.name)] : []),
        ...tileDecays,
        ...(decay === "position" ? decays : []),
      ],
      (counts) => ({
        tiles: counts[rows.name],
        sequences: target.sequences,
        firstHead,
        heads: range.stateHeads,
        kvHeads,
        stateWords: (state?.words ?? 0) / 4,
      }),
    );
    emit.dispatch(
      output,
      [
        valueOperand(q),
        ...(causal ? [valueOperand(k), valueOperand(v), rowTable(q.rows)] : []),
        tiles,
        valueOperand(tileStates),
        ...decays,
        valueOperand(y),
      ],
      (counts) => ({ ...numbers, ...range, tiles: counts[rows.name], groupSize }),
    );
  }
}
