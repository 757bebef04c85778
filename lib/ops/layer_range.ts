// Neighbouring layers that one operation is about: what decode does to every layer alike is merged.

import type { KeyValueStore } from "./kv_layout.ts";

/** Layers that an operation is about; those of one kind and equal settings are merged. */
export interface LayerRange {
  readonly first: number;
  readonly count: number;
  readonly kvHeads: number;
}

/** Settings of an operation, of which the layer is told by its store. */
export type OfLayer<T> = Omit<T, "layers"> & { readonly store: KeyValueStore };

/** The layer of a store alone. */
export function oneLayer({ layer, kvHeads }: KeyValueStore): LayerRange {
  return { first: layer, count: 1, kvHeads };
}

/** The layers as parameters of a kernel. */
export function layerParameters({ first, count, kvHeads }: LayerRange): Record<string, number> {
  return { layer: first, layers: count, kvHeads };
}
