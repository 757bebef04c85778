// Scores of keys by the attention that recent rows pay them, and the selection of rows by such scores.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Rows,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { columnScores as columnScoresKernel } from "../../wgsl/column_scores.ts";
import { poolScores as poolScoresKernel, type PoolScoresSpec } from "../../wgsl/pool_scores.ts";
import { selectRows as selectRowsKernel } from "../../wgsl/select_rows.ts";
import { spreadBudget as spreadBudgetKernel } from "../../wgsl/spread_budget.ts";
import { storeScores as storeScoresKernel } from "../../wgsl/store_scores.ts";
import { arenaName, arenasOf, type KeyValueStore } from "./kv_layout.ts";
import { rowTable, spansName } from "./row_tables.ts";

/** What a selection is made by: its table, and the number of columns that need scores, by one name. */
export type SelectionName = string;

interface ColumnScores {
  readonly store: KeyValueStore;
  readonly scale: number;
  readonly selection: SelectionName;
  readonly distanceWeight: number;
  /** Sums over rows in place of means, of the group's mean or of a part of the mean over all heads. */
  readonly sums?: "group" | "heads";
  /** Means over each KV head's own query heads, in place of parts of the mean over all heads. */
  readonly groupMeans?: boolean;
}

const columnScoresOp: OpDefinition<ColumnScores> = {
  kind: "columnScores",
  takesViews: true,
  lower({ inputs: [q, logSumExps], outputs: [scores], attributes }, emit): void {
    const { store, scale, selection, distanceWeight, sums, groupMeans } = attributes;
    const { target } = emit;
    const { kvHeads, headSize } = store;
    const heads = q.width / headSize;
    const queries = placementOf(q);
    const kernel = columnScoresKernel({
      dtype: target.cacheType,
      headSize,
      groupSize: heads / kvHeads,
      ...(sums ? { sums } : {}),
      ...(groupMeans ? { groupMeans } : {}),
    });
    arenasOf(store, target).forEach((arena, i) =>
      emit.dispatch(
        kernel,
        [
          valueOperand(q),
          resource(arenaName(store.name, "keys", i)),
          resource(store.positions),
          rowTable(q.rows),
          resource(store.extents),
          resource(selection),
          valueOperand(logSumExps),
          valueOperand(scores),
        ],
        (counts) => ({
          columns: counts[selection],
          heads,
          kvHeads,
          layer: store.layer,
          sequences: target.sequences,
          firstHead: arena.firstHead,
          arenaHeads: arena.heads,
          qStride: queries.stride,
          qOffset: queries.offset,
          scale,
          distanceWeight,
          stride: q.rows.capacity,
        }),
      )
    );
  },
};

/**
 * How much attention each of the step's keys gets from the newest rows, by KV head: [kvHeads][rows], weighted from 1 for
 * the oldest of these rows to `distanceWeight` for the newest, as a mean over rows and heads (PyramidInfer; second pass
 * over keys with the rows' log-sum-exps). With `sums` over the rows: a sum, where that is a mean.
 */
export function columnScores(trace: Trace, q: Value, logSumExps: Value, options: ColumnScores): Value {
  const scores = trace.value("scores", q.rows, options.store.kvHeads);
  trace.append(columnScoresOp, [q, logSumExps], [scores], options);
  return scores;
}

interface PoolScores extends PoolScoresSpec {
  readonly selection: SelectionName;
  readonly width: number;
}

const poolScoresOp: OpDefinition<PoolScores> = {
  kind: "poolScores",
  lower({ inputs: [scores], outputs: [out], attributes }, emit): void {
    const { selection, width, heads, pool, whole = false } = attributes;
    emit.dispatch(
      poolScoresKernel({ heads, pool, whole }),
      [valueOperand(scores), resource(selection), valueOperand(out)],
      (counts) => ({
        columns: counts[selection],
        kvHeads: scores.width,
        sequences: emit.target.sequences,
        width,
        stride: scores.rows.capacity,
      }),
    );
  },
};

/** Sums scores over heads, and pools them over neighbouring keys; [1 or kvHeads][rows]. */
export function poolScores(trace: Trace, scores: Value, options: PoolScores): Value {
  const out = trace.value("pooled", scores.rows, options.heads === "sum" ? 1 : scores.width);
  trace.append(poolScoresOp, [scores], [out], options);
  return out;
}

const pickRowsOp: OpDefinition<{ readonly selection: SelectionName; readonly spans: string }> = {
  kind: "pickRows",
  lower({ inputs: [scores, keeps], outputs: [map, table], attributes: { selection, spans } }, emit): void {
    emit.dispatch(
      selectRowsKernel({ output: "rows", counted: keeps !== undefined }),
      [
        valueOperand(scores),
        resource(selection),
        rowTable(scores.rows),
        valueOperand(map),
        valueOperand(table),
        ...(keeps ? [valueOperand(keeps), resource(spans)] : []),
      ],
      () => ({ sequences: emit.target.sequences, stride: scores.rows.capacity, heads: 1 }),
    );
  },
};

/** Rows that are picked from others. They know where they come from, so that other values can be aligned to them. */
export interface PickedRows extends Rows {
  readonly from: { readonly rows: Rows; readonly map: Value };
  readonly table: Value;
}

/** Names rows that will be picked from `rows` by {@linkcode pickRows}. */
export function pickedRows(trace: Trace, rows: Rows, name: string): PickedRows {
  const map = trace.value("map", rows, 1);
  const table = trace.value("rowTable", rows, 4);
  return { name, capacity: rows.capacity, thin: rows.thin, from: { rows, map }, table };
}

/**
 * Picks the rows that a selection leaves by scores [1][rows]: sinks, window, and the best of the others, as many as it says
 * or as `keeps` counts by sequence. Counted ones stand at the end of their room, and the spans of `picked` tell where.
 */
export function pickRows(
  trace: Trace,
  scores: Value,
  selection: SelectionName,
  picked: PickedRows,
  keeps?: Value,
): void {
  const attributes = { selection, spans: spansName(picked) };
  trace.append(pickRowsOp, keeps ? [scores, keeps] : [scores], [picked.from.map, picked.table], attributes);
}

const storeScoresOp: OpDefinition<{ readonly store: KeyValueStore; readonly selection: SelectionName }> = {
  kind: "storeScores",
  lower({ inputs: [scores], attributes: { store, selection } }, emit): void {
    emit.dispatch(
      storeScoresKernel(),
      [
        valueOperand(scores),
        rowTable(scores.rows),
        resource(store.extents),
        resource("states"),
        resource("slotScores"),
      ],
      (counts) => ({
        rows: counts[selection] > 0 ? counts[scores.rows.name] : 0,
        scoredHeads: scores.width,
        kvHeads: store.kvHeads,
        layer: store.layer,
        sequences: emit.target.sequences,
        stride: scores.rows.capacity,
      }),
    );
  },
};

/** Notes the scores [1 or kvHeads][rows] of the step's rows by their slots, for decode to evict by. */
export function storeScores(
  trace: Trace,
  scores: Value,
  store: KeyValueStore,
  selection: SelectionName,
): void {
  trace.append(storeScoresOp, [scores], [], { store, selection });
}

interface SpreadBudget {
  readonly selection: SelectionName;
  readonly share: number;
}

const spreadBudgetOp: OpDefinition<SpreadBudget> = {
  kind: "spreadBudget",
  lower({ inputs: [scores], outputs: [keeps], attributes: { selection, share } }, emit): void {
    emit.dispatch(
      spreadBudgetKernel(),
      [valueOperand(scores), resource(selection), valueOperand(keeps)],
      (counts) => ({
        heads: scores.width,
        sequences: emit.target.sequences,
        stride: scores.rows.capacity,
        // Heads that have tokens already have their slots too, and get as many more as the others.
        share: counts[laterName(selection)] > 0 ? 1 : share,
      }),
    );
  },
};

/** Name of the count that says whether sequences of a step have tokens already. */
function laterName(selection: SelectionName): string {
  return `${selection}.later`;
}

/**
 * Spreads a selection's budget over the KV heads, which have scores [heads][rows]: a head is sure of `share` of its part,
 * the rest goes to the best scores of all (Ada-KV); [sequences][heads] of u32. In a step of later turns all heads get as
 * much.
 */
export function spreadBudget(trace: Trace, scores: Value, options: SpreadBudget): Value {
  const { rows } = scores;
  const sequences = { ...rows, capacity: Math.max(rows.capacity, trace.target.sequences) };
  const keeps = trace.value("keeps", sequences, scores.width);
  trace.stepCounts.set(
    laterName(options.selection),
    (step) => step.sequences.filter(({ rows, turn }) => rows > 0 && turn.position > 0).length,
  );
  trace.append(spreadBudgetOp, [scores], [keeps], options);
  return keeps;
}

const selectSlotsOp: OpDefinition<{ readonly selection: SelectionName }> = {
  kind: "selectSlots",
  lower({ inputs: [scores, keeps], outputs: [map], attributes: { selection } }, emit): void {
    emit.dispatch(
      selectRowsKernel({ output: "slots", counted: keeps !== undefined }),
      [
        valueOperand(scores),
        resource(selection),
        valueOperand(map),
        ...(keeps ? [valueOperand(keeps)] : []),
      ],
      () => ({ sequences: emit.target.sequences, stride: scores.rows.capacity, heads: scores.width }),
    );
  },
};

/** Selects, for each head that has scores [heads][rows], the rows whose keys and values are kept: [heads][rows] of u32. */
export function selectSlots(trace: Trace, scores: Value, selection: SelectionName, keeps?: Value): Value {
  const map = trace.value("slotMap", scores.rows, scores.width);
  trace.append(selectSlotsOp, keeps ? [scores, keeps] : [scores], [map], { selection });
  return map;
}
