// Causal softmax attention over the cache, with grouped-query heads: split-K for few rows, flash tiles for many.

import {
  type OpDefinition,
  type Operand,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { attentionDecode } from "../../wgsl/attention_decode.ts";
import { attentionPrefill } from "../../wgsl/attention_prefill.ts";
import { attentionReduce } from "../../wgsl/attention_reduce.ts";
import { arenaName, arenasOf, type KeyValueStore } from "./kv_layout.ts";
import { rowTable, tilesName } from "./row_tables.ts";

/** Slots a workgroup of split-K attention takes. Fixed, so that a sum's order depends on the sequence alone. */
const SPLIT = 64;

interface AttentionAttributes {
  readonly store: KeyValueStore;
  readonly scale: number;
}

const softmaxAttentionOp: OpDefinition<AttentionAttributes> = {
  kind: "softmaxAttention",
  takesViews: true,
  lower(operation, emit): void {
    const { inputs: [q], outputs: [y, logits, logSumExps], attributes: { store, scale } } = operation;
    const { target, trace } = emit;
    const { kvHeads, headSize } = store;
    const heads = q.width / headSize;
    const queries = placementOf(q);
    const shared = {
      heads,
      kvHeads,
      layer: store.layer,
      sequences: target.sequences,
      qStride: queries.stride,
      qOffset: queries.offset,
      scale,
      outStride: y.width,
    };
    const kv = (arena: number): Operand[] => [
      resource(arenaName(store.name, "keys", arena)),
      resource(arenaName(store.name, "values", arena)),
      resource(store.positions),
      rowTable(q.rows),
      resource(store.extents),
    ];
    const arenas = arenasOf(store, target);
    // A decode step has one row a sequence, so tiles of rows would be tiles of one.
    if (target.phase === "prefill" && !q.rows.thin) {
      const kernel = attentionPrefill({
        dtype: target.cacheType,
        headSize,
        subgroups: target.features.subgroups,
        ordered: true,
      });
      arenas.forEach((arena, i) =>
        emit.dispatch(
          kernel,
          [valueOperand(q), ...kv(i), resource(tilesName(q.rows)), valueOperand(y)],
          (counts) => ({
            ...shared,
            tiles: counts[tilesName(q.rows)],
            firstHead: arena.firstHead,
            arenaHeads: arena.heads,
          }),
        )
      );
      return;
    }
    const most = Math.max(1, Math.ceil(target.longest / SPLIT));
    const partials = trace.value("partials", q.rows, heads * most * headSize);
    const statistics = trace.value("statistics", q.rows, heads * most * 2);
    const decode = attentionDecode({
      dtype: target.cacheType,
      headSize,
      groupSize: heads / kvHeads,
      split: SPLIT,
      logits: logits !== undefined,
    });
    arenas.forEach((arena, i) =>
      emit.dispatch(
        decode,
        [
          valueOperand(q),
          ...kv(i),
          valueOperand(partials),
          valueOperand(statistics),
          ...(logits ? [valueOperand(logits)] : []),
        ],
        (counts) => ({
          ...shared,
          rows: counts[q.rows.name],
          firstHead: arena.firstHead,
          arenaHeads: arena.heads,
          splits: splits(Math.min(counts.longest, target.longest)),
          logitStride: target.longest,
        }),
      )
    );
    emit.dispatch(
      attentionReduce({ headSize, logSumExp: logSumExps !== undefined }),
      [
        valueOperand(partials),
        valueOperand(statistics),
        rowTable(q.rows),
        resource(store.extents),
        valueOperand(y),
        ...(logSumExps ? [valueOperand(logSumExps)] : []),
      ],
      (counts) => ({
        ...shared,
        rows: counts[q.rows.name],
        splits: splits(Math.min(counts.longest, target.longest)),
        split: SPLIT,
      }),
    );
  },
};

function splits(longest: number): number {
  return Math.max(1, Math.ceil(longest / SPLIT));
}

/**
 * softmax(scale · q Kᵀ + mask) V by head, over every slot whose original position is at most the row's.
 * `q` is [rows, heads · headSize]; `heads` is a multiple of the store's KV heads.
 *
 * @throws {TypeError} when the heads do not fit the store.
 */
export function softmaxAttention(trace: Trace, q: Value, store: KeyValueStore, scale: number): Value {
  const y = attended(q, store, trace);
  trace.append(softmaxAttentionOp, [q], [y], { store, scale });
  return y;
}

/** Attention of a decode step with what it was made of. */
export interface RecordedAttention {
  /** As of {@linkcode softmaxAttention}. */
  readonly values: Value;
  /** Scaled scores [rows · heads, longest] by slot. */
  readonly logits: Value;
  /** Their log-sum-exps [rows, heads]. */
  readonly logSumExps: Value;
}

/** Softmax attention of a decode step that tells the scores as well. */
export function recordedAttention(
  trace: Trace,
  q: Value,
  store: KeyValueStore,
  scale: number,
): RecordedAttention {
  const values = attended(q, store, trace);
  const heads = q.width / store.headSize;
  const logits = trace.value("logits", q.rows, heads * trace.target.longest);
  const logSumExps = trace.value("logSumExps", q.rows, heads);
  trace.append(softmaxAttentionOp, [q], [values, logits, logSumExps], { store, scale });
  return { values, logits, logSumExps };
}

function attended(q: Value, store: KeyValueStore, trace: Trace): Value {
  const { kvHeads, headSize } = store;
  const heads = q.width / headSize;
  if (!Number.isInteger(heads / kvHeads)) {
    throw new TypeError(
      `Query width ${q.width} is no multiple of ${kvHeads} KV heads of ${headSize}: heads must be grouped evenly`,
    );
  }
  return trace.value("attention", q.rows, q.width);
}
