// The softmax core whose cache keeps a part of the tokens: select first, then compute.
//
// Prefill of a layer: queries, keys and values of its rows; attention of the window, which tells the log-sum-exps; scores
// of the keys by them; selection; attention, and all that follows it, for the rows that are left alone.

import { type Core, type CoreInput, ops, type Trace, type Value } from "../../layers/mod.ts";
import type { EvictRule, LayerRule, ScoreInput } from "./policy.ts";
import {
  compressedTurns,
  nucleusRules,
  prefillTables,
  rowsLeft,
  type ScheduleOf,
  stagedLengths,
} from "./prefill_tables.ts";
import { attentionSums } from "./scorers.ts";

/** What a pruned core is made of. */
export interface PrunedCoreSpec {
  /** Name of the policy, for printed pipelines. */
  readonly name: string;
  /** Index of the layer among the softmax layers. */
  readonly layer: number;
  /** Number of softmax layers. */
  readonly layers: number;
  /** Whether no other attention layer, of whatever core, comes after it. */
  readonly last: boolean;
  /** What the layer does. */
  readonly rule: LayerRule;
  /** Lengths by turn. */
  readonly scheduleOf: ScheduleOf;
}

/** Softmax attention with a rule that prunes. */
export function prunedCore(spec: PrunedCoreSpec): Core {
  return {
    kind: `softmax, ${spec.name}`,
    prefill: "whole",
    positionLimit: true,
    prunes: true,
    apply: (trace, input) =>
      trace.target.phase === "prefill" ? applyPrefill(trace, input, spec) : applyDecode(trace, input, spec),
  };
}

/** Asks for the layer's cache. */
function cacheOf(trace: Trace, { rows, shape }: CoreInput, spec: PrunedCoreSpec, staged = false) {
  const { rule, scheduleOf, layer } = spec;
  const perKvHead = rule.prefill?.perKvHead === true || rule.decode?.perKvHead === true;
  const { decode } = rule;
  return ops.keyValueCache(trace, {
    kvHeads: shape.kvHeads,
    headSize: shape.headSize,
    rows: rows.rows,
    ownPositions: perKvHead,
    staged,
    scores: decode !== undefined && !(decode.type === "evict" && decode.score === "position"),
    sums: decode?.type === "block",
    savedSinks: movingSinks(spec),
    keeps(turn) {
      const { past, window, keepSlots, capacity } = scheduleOf(turn).layers[layer];
      return { stored: past + window + keepSlots, capacity };
    },
  });
}

/** Sinks whose keys are rotated anew. */
function movingSinks({ rule: { decode } }: PrunedCoreSpec): number {
  return decode?.type === "evict" && decode.relative ? decode.sinks : 0;
}

/** Rotates them, where there are any and positions mean something. */
function turnSinks(trace: Trace, cache: ops.KeyValueStore, { shape }: CoreInput, spec: PrunedCoreSpec): void {
  const sinks = movingSinks(spec);
  if (sinks > 0 && shape.rotary) ops.turnSinkKeys(trace, { store: cache, sinks, rotary: shape.rotary });
}

function applyPrefill(trace: Trace, input: CoreInput, spec: PrunedCoreSpec): Value {
  const { rule: { prefill, decode }, scheduleOf } = spec;
  const { rows, shape } = input;
  const scale = 1 / Math.sqrt(shape.headSize);
  addDecodeTables(trace, spec);
  const project = () => ({ q: input.query(rows), k: input.key(rows), v: input.value(rows) });
  if (!prefill) {
    const store = cacheOf(trace, input, spec);
    const q = ops.storeKeyValues(trace, project(), store, shape.rotary);
    return ops.softmaxAttention(trace, q, store, scale);
  }
  const cache = cacheOf(trace, input, spec, prefill.cutsSlots);
  const { layer } = spec;
  turnSinks(trace, cache, input, spec);
  const store = prefill.cutsSlots
    ? ops.stage(trace, cache, rows.rows, (step) => stagedLengths(step, layer, scheduleOf))
    : cache;
  const q = ops.storeKeyValues(trace, project(), store, shape.rotary);
  const scored = decode?.type === "block"
    ? decode.capped
    : decode?.type === "evict" && decode.score === "sum";
  if (
    trace.target.lastRows && spec.last && prefill.dropsRows && !prefill.cutsSlots && !scored
  ) {
    // Nothing of the last layer is needed but the last row's values.
    return ops.attendLastRows(trace, q, { store, scale, name: `left.${layer}` });
  }
  const tables = prefillTables(trace, layer, scheduleOf, prefill.dropsRows);
  const { nucleus } = prefill;
  if (nucleus !== undefined && rows.rows.table) ops.narrowSelections(trace, tables.selection, rows.rows);
  const left = prefill.dropsRows ? ops.pickedRows(trace, rows.rows, `left.${layer}`) : undefined;
  if (left) ops.pickedRowTables(trace, left.name, (step) => rowsLeft(step, layer, scheduleOf));
  const logSumExps = trace.value("logSumExps", rows.rows, shape.heads);
  const out = trace.value("attention", left ?? rows.rows, q.width);
  ops.attendTiles(trace, q, { store, scale, tiles: tables.firstTiles, out, logSumExps });
  const { selection } = tables;
  const scoring = { queries: q, logSumExps, store, scale, selection, shape };
  // Where nothing is chosen by scores, none are read.
  const scores = prefill.score?.(trace, scoring) ?? trace.value("scores", rows.rows, shape.kvHeads);
  const { perKvHead, spread } = prefill;
  const shared = left || !perKvHead ? sumOverHeads(trace, scores, selection) : scores;
  const slotScores = perKvHead ? scores : shared;
  const sums = decode?.type === "evict" && decode.score === "sum" && !prefill.sums;
  const noted = sums ? attendedSums(trace, scoring, perKvHead) : slotScores;
  // Rows that are counted are those of the next layers as well as those whose keys and values stay.
  const rowKeeps = nucleus === undefined
    ? undefined
    : ops.nucleusBudget(trace, shared, { selection, layer, ruleLayers: spec.layers, largest: nucleus });
  if (prefill.cutsSlots) {
    const slotSelection = rowKeeps ? selection : tables.slotSelection;
    const keeps = spread === undefined
      ? rowKeeps
      : ops.spreadBudget(trace, scores, { selection: slotSelection, share: spread });
    const map = ops.selectSlots(trace, slotScores, slotSelection, keeps);
    const chosen = { selection: slotSelection, map, scores: noted, ...(keeps ? { keeps } : {}) };
    ops.commit(trace, { stage: store, cache, perKvHead, scored, ...chosen });
  } else if (scored) ops.storeScores(trace, noted, cache, selection);
  if (movingSinks(spec) > 0) ops.saveSinkKeys(trace, { store: cache, sinks: movingSinks(spec) });
  if (left) {
    ops.pickRows(trace, shared, selection, left, rowKeeps);
    if (rowKeeps) {
      for (const tiles of [`${left.name}.tiles`, tables.contextTiles]) ops.narrowTiles(trace, tiles, left);
    }
  }
  // Where everything goes on, the tiles count the rows as they are.
  const map = left?.from.map;
  ops.attendTiles(trace, q, { store, scale, tiles: tables.contextTiles, out, ...(map ? { map } : {}) });
  return out;
}

/** Scores of all heads together, those of the window's rows too. */
function sumOverHeads(trace: Trace, scores: Value, selection: string): Value {
  return ops.poolScores(trace, scores, { heads: "sum", pool: "none", width: 1, whole: true, selection });
}

/** What decode adds its attention to, when the prompt is chosen by other scores. */
function attendedSums(trace: Trace, input: ScoreInput, perKvHead: boolean): Value {
  const sums = attentionSums(perKvHead)(trace, input);
  return perKvHead ? sums : sumOverHeads(trace, sums, input.selection);
}

function applyDecode(trace: Trace, input: CoreInput, spec: PrunedCoreSpec): Value {
  const { rows, shape } = input;
  const { decode } = spec.rule;
  const scale = 1 / Math.sqrt(shape.headSize);
  const store = cacheOf(trace, input, spec);
  const projections = { q: input.query(rows), k: input.key(rows), v: input.value(rows) };
  const q = ops.storeKeyValues(trace, projections, store, shape.rotary);
  if (movingSinks(spec) > 0) ops.saveSinkKeys(trace, { store, sinks: movingSinks(spec) });
  turnSinks(trace, store, input, spec);
  if (!decode) return ops.softmaxAttention(trace, q, store, scale);
  const heads = decode.perKvHead ? "each" as const : "mean" as const;
  const common = { store, rows: rows.rows, heads };
  if (decode.type === "evict" && decode.score === "position") {
    const values = ops.softmaxAttention(trace, q, store, scale);
    ops.evictSlot(trace, { ...common, limit: "window", score: "position", ...protectedBy(decode) });
    return values;
  }
  const attention = ops.recordedAttention(trace, q, store, scale);
  addDecodeTables(trace, spec);
  if (decode.type === "nucleus") {
    ops.scoreSlots(trace, attention, { store, mode: "last", heads });
    const { layers } = spec;
    ops.evictNucleus(trace, { store, rows: rows.rows, sinks: decode.sinks, ruleLayers: layers });
  } else if (decode.type === "block") {
    const { distanceWeight, sinks } = decode;
    ops.scoreSlots(trace, attention, { store, mode: "block", heads });
    ops.compressBlock(trace, { ...common, distanceWeight });
    if (decode.capped) {
      ops.evictSlot(trace, { ...common, limit: "frozen", score: "stored", sinks, window: 0 });
    }
  } else {
    ops.scoreSlots(trace, attention, { store, mode: decode.score as "sum" | "last", heads });
    ops.evictSlot(trace, { ...common, limit: "window", score: "stored", ...protectedBy(decode) });
  }
  return attention.values;
}

/** Adds the tables that decode reads, if there are any; they are written before a prefill. */
function addDecodeTables(
  trace: Trace,
  { layers, scheduleOf, rule: { decode, prefill } }: PrunedCoreSpec,
): void {
  if (decode?.type === "block") ops.turnTables(trace, layers, (step) => compressedTurns(step, scheduleOf));
  if (decode?.type === "nucleus" || prefill?.nucleus !== undefined) {
    ops.nucleusTable(trace, layers, (step) => nucleusRules(step, scheduleOf));
  }
}

function protectedBy({ sinks, window }: EvictRule): Pick<EvictRule, "sinks" | "window"> {
  return { sinks, window };
}
