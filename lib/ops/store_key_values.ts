// Rotates queries and keys by their rows' original positions and stores keys and values in the cache.

import {
  type CacheRequest,
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { cacheAppend } from "../../wgsl/cache_append.ts";
import { ropeStore } from "../../wgsl/rope_store.ts";
import { arenaName, arenasOf, KV_CACHE, type KvSizes } from "./kv_layout.ts";
import { type Rotary, rotaryTable } from "./rotary.ts";

/** Gives every sequence's rows their slots, for all layers at once, before the first layer stores. */
const cacheAppendOp: OpDefinition<KvSizes> = {
  kind: "cacheAppend",
  lower({ attributes }, emit): void {
    const layers = emit.trace.caches.filter((cache) => cache.kind === KV_CACHE).length;
    emit.dispatch(
      cacheAppend({ sharedPositions: true }),
      ["extents", "states", "spans", "rows", "slotPositions"].map(resource),
      () => ({ layers, sequences: emit.target.sequences, kvHeads: attributes.kvHeads }),
    );
  },
};

/** Asks for the next layer's keys and values; the first one also makes room for the step's rows. */
export function keyValueCache(trace: Trace, sizes: KvSizes): CacheRequest {
  const { kvHeads, headSize } = sizes;
  const earlier = trace.caches.find((cache) => cache.kind === KV_CACHE);
  if (earlier && earlier.sizes.kvHeads !== kvHeads) {
    throw new TypeError(
      `All layers need the same number of KV heads: ${earlier.sizes.kvHeads} and ${kvHeads}`,
    );
  }
  if (!earlier) trace.append(cacheAppendOp, [], [], sizes);
  return trace.cache(KV_CACHE, { kvHeads, headSize });
}

interface StoreAttributes {
  readonly cache: CacheRequest;
  readonly rotary?: Rotary;
}

const storeOp: OpDefinition<StoreAttributes> = {
  kind: "storeKeyValues",
  takesViews: true,
  lower({ inputs: [q, k, v], attributes: { cache, rotary } }, emit): void {
    const [queries, keys, values] = [q, k, v].map(placementOf);
    const { kvHeads, headSize } = cache.sizes;
    const { target } = emit;
    if (keys.root !== values.root || queries.root !== keys.root) {
      throw new TypeError(
        "Queries, keys and values of a layer must be adjacent ranges of one weight, read by attention alone",
      );
    }
    const kernel = ropeStore({
      dtype: target.cacheType,
      headSize,
      rotaryLayout: rotary?.layout ?? "none",
      rotarySize: rotary?.size ?? headSize,
    });
    arenasOf(cache, target).forEach((arena, index) => {
      emit.dispatch(
        kernel,
        [
          valueOperand(queries.root),
          ...(rotary ? [resource(`rotary.${rotary.name}`)] : []),
          resource("rows"),
          resource("extents"),
          resource("states"),
          resource(arenaName(cache.layer, "keys", index)),
          resource(arenaName(cache.layer, "values", index)),
        ],
        (counts) => ({
          rows: counts[q.rows.name],
          heads: q.width / headSize,
          kvHeads,
          stride: queries.stride,
          qOffset: queries.offset,
          kOffset: keys.offset,
          vOffset: values.offset,
          layer: cache.layer,
          sequences: target.sequences,
          firstHead: arena.firstHead,
          arenaHeads: arena.heads,
          rotateQ: index === 0 ? 1 : 0,
        }),
      );
    });
  },
};

/**
 * Rotates `q` [rows, heads · headSize] in place and stores rotated `k` and `v` [rows, kvHeads · headSize] at their rows'
 * slots. Rows of sequences that are done store nothing. Returns the rotated queries.
 *
 * @throws {TypeError} when the widths do not fit the cache, or the rows differ.
 */
export function storeKeyValues(
  trace: Trace,
  projections: { readonly q: Value; readonly k: Value; readonly v: Value },
  cache: CacheRequest,
  rotary?: Rotary,
): Value {
  const { q, k, v } = projections;
  const { kvHeads, headSize } = cache.sizes;
  if (k.width !== kvHeads * headSize || v.width !== k.width) {
    throw new TypeError(
      `Keys and values need ${kvHeads} heads of ${headSize}: widths are ${k.width} and ${v.width}`,
    );
  }
  if (k.rows !== q.rows || v.rows !== q.rows) {
    throw new TypeError(
      `Queries, keys and values need the same rows: they have ${q.rows.name}, ${k.rows.name} and ${v.rows.name}`,
    );
  }
  if (rotary && rotary.size > headSize) {
    throw new TypeError(`Rotary size ${rotary.size} is over the head size ${headSize}`);
  }
  if (rotary) trace.constants.set(`rotary.${rotary.name}`, () => rotaryTable(rotary));
  const rotated = trace.value("rotated", q.rows, q.width);
  rotated.view = { of: q, offset: 0 };
  trace.append(storeOp, [q, k, v], [rotated], rotary ? { cache, rotary } : { cache });
  return rotated;
}
