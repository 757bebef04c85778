// Rotates queries and keys by their rows' original positions and stores keys and values in the cache.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { ropeStore } from "../../wgsl/rope_store.ts";
import { arenaName, arenasOf, type KeyValueStore } from "./kv_layout.ts";
import { type Rotary, rotaryTable } from "./rotary.ts";
import { rowTable } from "./row_tables.ts";

interface StoreAttributes {
  readonly store: KeyValueStore;
  readonly rotary?: Rotary;
}

const storeOp: OpDefinition<StoreAttributes> = {
  kind: "storeKeyValues",
  takesViews: true,
  lower({ inputs: [q, k, v], attributes: { store, rotary } }, emit): void {
    const [queries, keys, values] = [q, k, v].map(placementOf);
    const { kvHeads, headSize } = store;
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
    arenasOf(store, target).forEach((arena, index) => {
      emit.dispatch(
        kernel,
        [
          valueOperand(queries.root),
          ...(rotary ? [resource(`rotary.${rotary.name}`)] : []),
          rowTable(q.rows),
          resource(store.extents),
          resource("states"),
          resource(arenaName(store.name, "keys", index)),
          resource(arenaName(store.name, "values", index)),
        ],
        (counts) => ({
          rows: counts[q.rows.name],
          heads: q.width / headSize,
          kvHeads,
          stride: queries.stride,
          qOffset: queries.offset,
          kOffset: keys.offset,
          vOffset: values.offset,
          layer: store.layer,
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
 * @throws {TypeError} when the widths do not fit the store, or the rows differ.
 */
export function storeKeyValues(
  trace: Trace,
  projections: { readonly q: Value; readonly k: Value; readonly v: Value },
  store: KeyValueStore,
  rotary?: Rotary,
): Value {
  const { q, k, v } = projections;
  const { kvHeads, headSize } = store;
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
  trace.append(storeOp, [q, k, v], [rotated], rotary ? { store, rotary } : { store });
  return rotated;
}
