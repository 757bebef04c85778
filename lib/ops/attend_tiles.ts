// Softmax attention of some rows of a step, picked by tiles: those of a window, or those that a selection left.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { attentionPrefill } from "../../wgsl/attention_prefill.ts";
import { arenaName, arenasOf, type KeyValueStore } from "./kv_layout.ts";
import { rowTable } from "./row_tables.ts";

interface AttendTiles {
  readonly store: KeyValueStore;
  readonly scale: number;
  readonly tiles: string;
  readonly mapped: boolean;
  readonly logSumExp: boolean;
}

/** Inputs: queries, and the map if the tiles count by one. Outputs: values, and the log-sum-exps if asked for. */
const attendTilesOp: OpDefinition<AttendTiles> = {
  kind: "attendTiles",
  takesViews: true,
  lower({ inputs: [q, map], outputs: [y, logSumExps], attributes }, emit): void {
    const { store, scale, tiles, mapped, logSumExp } = attributes;
    const { target } = emit;
    const { kvHeads, headSize } = store;
    const queries = placementOf(q);
    const kernel = attentionPrefill({
      dtype: target.cacheType,
      headSize,
      subgroups: target.features.subgroups,
      ordered: true,
      logSumExp,
      mapped,
    });
    arenasOf(store, target).forEach((arena, i) =>
      emit.dispatch(
        kernel,
        [
          valueOperand(q),
          resource(arenaName(store.name, "keys", i)),
          resource(arenaName(store.name, "values", i)),
          resource(store.positions),
          rowTable(q.rows),
          resource(store.extents),
          resource(tiles),
          valueOperand(y),
          ...(logSumExp ? [valueOperand(logSumExps)] : []),
          ...(mapped ? [valueOperand(map)] : []),
        ],
        (counts) => ({
          tiles: counts[tiles],
          heads: q.width / headSize,
          kvHeads,
          layer: store.layer,
          sequences: target.sequences,
          firstHead: arena.firstHead,
          arenaHeads: arena.heads,
          qStride: queries.stride,
          qOffset: queries.offset,
          scale,
          outStride: y.width,
        }),
      )
    );
  },
};

/** Arguments of {@linkcode attendTiles}. */
export interface AttendTilesOptions {
  /** Keys and values. */
  readonly store: KeyValueStore;
  /** Factor of the scores. */
  readonly scale: number;
  /** Name of the table of tiles and of their count. */
  readonly tiles: string;
  /** Where the rows' values go, at the rows that the tiles name. */
  readonly out: Value;
  /** Row numbers that the tiles count by; none: the rows of `q` themselves. */
  readonly map?: Value;
  /** Gets the log-sum-exp of the scores [rows of q, heads]. */
  readonly logSumExps?: Value;
}

/** softmax(scale · q Kᵀ + mask) V for the rows of the tiles; other rows of `out` stay as they are. */
export function attendTiles(trace: Trace, q: Value, options: AttendTilesOptions): void {
  const { store, scale, tiles, out, map, logSumExps } = options;
  trace.append(
    attendTilesOp,
    map ? [q, map] : [q],
    logSumExps ? [out, logSumExps] : [out],
    { store, scale, tiles, mapped: map !== undefined, logSumExp: logSumExps !== undefined },
  );
}
