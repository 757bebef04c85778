// Causal softmax attention over the cache, with grouped-query heads: split-K for few rows, flash tiles for many.

import {
  type CacheRequest,
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { attentionDecode } from "../../wgsl/attention_decode.ts";
import { attentionPrefill } from "../../wgsl/attention_prefill.ts";
import { attentionReduce } from "../../wgsl/attention_reduce.ts";
import { arenaName, arenasOf } from "./kv_layout.ts";

/** Slots a workgroup of split-K attention takes. Fixed, so that a sum's order depends on the sequence alone. */
const SPLIT = 64;

interface AttentionAttributes {
  readonly cache: CacheRequest;
  readonly scale: number;
}

const softmaxAttentionOp: OpDefinition<AttentionAttributes> = {
  kind: "softmaxAttention",
  takesViews: true,
  lower(operation, emit): void {
    const { inputs: [q], outputs: [y], attributes: { cache, scale } } = operation;
    const { target, trace } = emit;
    const { kvHeads, headSize } = cache.sizes;
    const heads = q.width / headSize;
    const queries = placementOf(q);
    const shared = {
      heads,
      kvHeads,
      layer: cache.layer,
      sequences: target.sequences,
      qStride: queries.stride,
      qOffset: queries.offset,
      scale,
      outStride: y.width,
    };
    const kv = (arena: number) => [
      resource(arenaName(cache.layer, "keys", arena)),
      resource(arenaName(cache.layer, "values", arena)),
      resource("slotPositions"),
      resource("rows"),
      resource("extents"),
    ];
    const arenas = arenasOf(cache, target);
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
          [valueOperand(q), ...kv(i), resource("tiles"), valueOperand(y)],
          (counts) => ({
            ...shared,
            tiles: counts.tiles,
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
    });
    arenas.forEach((arena, i) =>
      emit.dispatch(
        decode,
        [valueOperand(q), ...kv(i), valueOperand(partials), valueOperand(statistics)],
        (counts) => ({
          ...shared,
          rows: counts[q.rows.name],
          firstHead: arena.firstHead,
          arenaHeads: arena.heads,
          splits: splits(Math.min(counts.longest, target.longest)),
        }),
      )
    );
    emit.dispatch(
      attentionReduce({ headSize }),
      [
        valueOperand(partials),
        valueOperand(statistics),
        resource("rows"),
        resource("extents"),
        valueOperand(y),
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
 * `q` is [rows, heads · headSize]; `heads` is a multiple of the cache's KV heads.
 *
 * @throws {TypeError} when the heads do not fit the cache.
 */
export function softmaxAttention(trace: Trace, q: Value, cache: CacheRequest, scale: number): Value {
  const { kvHeads, headSize } = cache.sizes;
  const heads = q.width / headSize;
  if (!Number.isInteger(heads / kvHeads)) {
    throw new TypeError(
      `Query width ${q.width} is no multiple of ${kvHeads} KV heads of ${headSize}: heads must be grouped evenly`,
    );
  }
  const y = trace.value("attention", q.rows, q.width);
  trace.append(softmaxAttentionOp, [q], [y], { cache, scale });
  return y;
}
