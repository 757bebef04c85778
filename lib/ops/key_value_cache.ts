// What a layer keeps of its keys and values, and the slots that a step's rows get there.

import {
  type KeptTokens,
  type OpDefinition,
  resource,
  type Rows,
  type Trace,
  type Turn,
} from "../graph/mod.ts";
import { cacheAppend } from "../../wgsl/cache_append.ts";
import { cacheStore, type KeyValueStore, KV_CACHE, type KvSizes } from "./kv_layout.ts";
import { rowTable, spansName } from "./row_tables.ts";

interface AppendAttributes {
  /** Where the slots are; none: all layers' caches. */
  readonly store?: KeyValueStore;
  readonly rows: Rows;
  readonly kvHeads: number;
}

/** Gives rows their slots before they are stored: of one layer, or of all layers at once. */
const cacheAppendOp: OpDefinition<AppendAttributes> = {
  kind: "cacheAppend",
  lower({ attributes: { store, rows, kvHeads } }, emit): void {
    const { ragged, phase, sequences, reuseDelay } = emit.target;
    const layers = store ? 1 : emit.trace.caches.filter((cache) => cache.kind === KV_CACHE).length;
    const reuse = ragged && phase === "decode";
    emit.dispatch(
      cacheAppend({ sharedPositions: !ragged, reuse }),
      [
        resource(store?.extents ?? "extents"),
        resource("states"),
        resource(spansName(rows)),
        rowTable(rows),
        resource(store?.positions ?? "slotPositions"),
        ...(reuse ? [resource("freedSlots")] : []),
      ],
      () => ({ layers, sequences, kvHeads, firstLayer: store?.layer ?? 0, delay: reuseDelay }),
    );
  },
};

/** Makes room for rows in a store of their own lengths. */
export function appendRows(trace: Trace, store: KeyValueStore, rows: Rows): void {
  trace.append(cacheAppendOp, [], [], { store, rows, kvHeads: store.kvHeads });
}

/** Arguments of {@linkcode keyValueCache}. */
export interface KeyValueCacheOptions extends KvSizes {
  /** Rows that are stored. Default: the step's. */
  readonly rows?: Rows;
  /** What is kept of a turn, when that is not all of it. */
  readonly keeps?: (turn: Turn) => KeptTokens;
  /** Whether every KV head keeps tokens of its own. */
  readonly ownPositions?: boolean;
  /** Whether every slot has a score, by which decode evicts. */
  readonly scores?: boolean;
  /** Whether every slot has sums from which a score is made. */
  readonly sums?: boolean;
  /** Sinks of a sequence whose first keys are saved, because they are rotated anew. Default: none. */
  readonly savedSinks?: number;
  /** Whether the rows get their slots later, after some were chosen. */
  readonly staged?: boolean;
}

/**
 * Asks for the next layer's keys and values and makes room there for the step's rows.
 *
 * @throws {TypeError} when layers have other numbers of KV heads.
 */
export function keyValueCache(trace: Trace, options: KeyValueCacheOptions): KeyValueStore {
  const { kvHeads, headSize, rows = trace.target.rows, keeps, staged = false } = options;
  const earlier = trace.caches.find((cache) => cache.kind === KV_CACHE);
  if (earlier && earlier.sizes.kvHeads !== kvHeads) {
    throw new TypeError(
      `All layers need the same number of KV heads: ${earlier.sizes.kvHeads} and ${kvHeads}`,
    );
  }
  const wanted = (["ownPositions", "scores", "sums"] as const).filter((what) => options[what]);
  const sizes: Record<string, number> = {
    kvHeads,
    headSize,
    ...Object.fromEntries(wanted.map((what) => [what, 1])),
    ...(options.savedSinks ? { savedSinks: options.savedSinks } : {}),
  };
  const store = cacheStore(trace.cache(KV_CACHE, sizes, keeps));
  const { ragged, phase } = trace.target;
  if (ragged && phase === "prefill") {
    if (!staged) appendRows(trace, store, rows);
  } else if (!earlier) trace.append(cacheAppendOp, [], [], { rows, kvHeads });
  return store;
}
