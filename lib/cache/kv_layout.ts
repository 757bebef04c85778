// Where a KV cache keeps what: capacities by layer and sequence, arenas, and the tables that are kept by slot.

import { allocatedBytes } from "../gpu/mod.ts";
import { type CacheRequest, storageBytes, type Turn } from "../graph/mod.ts";
import {
  type Arena,
  KV_CACHE,
  kvArenas,
  kvSizes,
  ownPositions,
  savedSinks,
  sinkKeysName,
} from "../ops/mod.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import type { StorageType } from "../../wgsl/kernel.ts";
import type { LayerCacheReport } from "./layer_report.ts";

/** What a KV cache is made for. */
export interface KvCacheSpec {
  /** The layers' requests, as traced. */
  readonly requests: readonly CacheRequest[];
  /** Slots of each sequence in layers that keep everything. */
  readonly capacities: readonly number[];
  /** Turns of the sequences, from which the capacities of the other layers follow; needed if there are such. */
  readonly turns?: readonly Turn[];
  /** Slots beyond that in those layers: what was evicted and is not reused yet. Default: none. */
  readonly reserve?: number;
  /** Storage type. */
  readonly dtype: StorageType;
  /** Largest binding in bytes. */
  readonly bindingBytes: number;
}

/** One layer of a KV cache. */
export interface KvLayer {
  /** Its request. */
  readonly request: CacheRequest;
  /** Slots of each sequence, for each KV head. */
  readonly capacities: readonly number[];
  /** Their sum. */
  readonly slots: number;
  /** Its arenas. */
  readonly arenas: readonly Arena[];
  /** Bytes of all slots of one head. */
  readonly headBytes: number;
  /** Whether every head keeps tokens of its own. */
  readonly own: boolean;
  /** First entry in the tables by slot, for a sequence and a head. */
  positions(sequence: number, head: number): number;
}

/** The layout of a KV cache. */
export interface KvLayout {
  /** Its layers. */
  readonly layers: readonly KvLayer[];
  /** Whether layers keep different tokens. */
  readonly ragged: boolean;
  /** Entries of the tables by slot. */
  readonly entries: number;
  /** KV heads of a layer. */
  readonly kvHeads: number;
}

/** Whether some layer keeps less than everything. */
export function isRagged(requests: readonly CacheRequest[]): boolean {
  return requests.some(({ kind, keeps }) => kind === KV_CACHE && keeps !== undefined);
}

/** Works out the layout. */
export function kvLayout(spec: KvCacheSpec): KvLayout {
  const requests = spec.requests.filter(({ kind }) => kind === KV_CACHE);
  const ragged = isRagged(requests);
  let entries = 0;
  const layers = requests.map((request): KvLayer => {
    const sizes = kvSizes(request);
    const capacities = spec.capacities.map((all, sequence) => {
      if (!request.keeps) return all;
      if (!spec.turns) throw new TypeError("A cache that keeps less than everything needs the turns");
      return request.keeps(spec.turns[sequence]).capacity + (spec.reserve ?? 0);
    });
    const slots = sum(capacities);
    const firsts = capacities.map((_, sequence) => sum(capacities.slice(0, sequence)));
    // Without ragged layers all of them share one range of positions.
    const first = ragged ? entries : 0;
    const own = ragged && ownPositions(request);
    if (ragged) entries += slots * (own ? sizes.kvHeads : 1);
    else entries = slots;
    return {
      request,
      capacities,
      slots,
      arenas: kvArenas(sizes, slots, spec.dtype, spec.bindingBytes),
      headBytes: slots * sizes.headSize * storageBytes(spec.dtype),
      own,
      positions: (sequence, head) =>
        own
          ? first + sizes.kvHeads * firsts[sequence] + head * capacities[sequence]
          : first + firsts[sequence],
    };
  });
  return { layers, ragged, entries, kvHeads: requests[0]?.sizes.kvHeads ?? 0 };
}

/** Bytes of the tables beside keys and values, by name. */
export function kvTableBytes(layout: KvLayout, sequences: number): Record<string, number> {
  const { layers, ragged, entries, kvHeads } = layout;
  if (layers.length === 0) return {};
  const wants = (what: string) => layers.some(({ request }) => request.sizes[what] === 1);
  return {
    extents: Math.max(4, layers.length * sequences * kvHeads * EXTENT_WORDS) * 4,
    slotPositions: entries * 4,
    ...(ragged ? { freedSlots: entries * 4 } : {}),
    ...(wants("scores") ? { slotScores: entries * 4 } : {}),
    ...(wants("sums") ? { slotSums: entries * 8 } : {}),
    ...Object.fromEntries(layers.flatMap(({ request }) => sinkKeysTable(request, sequences))),
  };
}

/** Name and bytes of the keys that a layer saves, if it does. */
function sinkKeysTable(request: CacheRequest, sequences: number): [string, number][] {
  const { kvHeads, headSize } = kvSizes(request);
  const bytes = sequences * kvHeads * savedSinks(request) * headSize * 4;
  return bytes > 0 ? [[sinkKeysName(request.layer), bytes]] : [];
}

/** Bytes of keys and values by layer, and of the tables beside them; what `createKvCache` will allocate. */
export function kvCacheBytes(
  spec: KvCacheSpec,
): { layers: LayerCacheReport[]; bytes: number; tableBytes: number } {
  const layout = kvLayout(spec);
  const layers = layout.layers.map(({ request, arenas, slots, headBytes }) => ({
    index: request.layer,
    kind: KV_CACHE,
    capacity: slots,
    cacheBytes: sum(arenas.map(({ heads }) => 2 * allocatedBytes(heads * headBytes))),
    stateBytes: 0,
  }));
  return {
    layers,
    bytes: sum(layers.map(({ cacheBytes }) => cacheBytes)),
    tableBytes: sum(Object.values(kvTableBytes(layout, spec.capacities.length)).map(allocatedBytes)),
  };
}

/**
 * Extents of empty sequences side by side in every arena: all of a head, then all of the next one. Where heads keep tokens
 * of their own, all heads of a sequence, then all of the next one: its slots may be dealt out again among its heads.
 */
export function extentTable(layout: KvLayout, sequences: number): Uint32Array<ArrayBuffer> {
  const { layers, kvHeads } = layout;
  const table = new Uint32Array(Math.max(4, layers.length * sequences * kvHeads * EXTENT_WORDS));
  for (const layer of layers) {
    for (const arena of layer.arenas) {
      let first = 0;
      layer.capacities.forEach((capacity, sequence) => {
        for (let i = 0; i < arena.heads; i++) {
          const head = arena.firstHead + i;
          const at = ((layer.request.layer * sequences + sequence) * kvHeads + head) * EXTENT_WORDS;
          const base = layer.own ? arena.heads * first + i * capacity : i * layer.slots + first;
          table.set([base, capacity, 0, 0, layer.positions(sequence, head)], at);
        }
        first += capacity;
      });
    }
  }
  return table;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, number) => all + number, 0);
}
