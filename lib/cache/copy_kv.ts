// Takes over the keys and values of one cache into another of the same layers that has room for them.

import { type Gpu, readBuffer } from "../gpu/mod.ts";
import { arenaName, sinkKeysName } from "../ops/mod.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import type { Cache } from "./cache.ts";
import type { KvLayer, KvLayout } from "./kv_layout.ts";

/** The cache that takes over. */
export interface CopyTarget {
  /** Its buffers. */
  readonly resources: ReadonlyMap<string, GPUBuffer>;
  /** Its layout. */
  readonly layout: KvLayout;
  /** Its extents when empty. */
  readonly empty: Uint32Array<ArrayBuffer>;
  /** Bytes of a key in a layer. */
  slotBytes(layer: number): number;
}

/**
 * Copies sequence 0; both caches have one sequence.
 *
 * @throws {RangeError} when there is no room.
 */
export async function copyKeyValues(gpu: Gpu, other: Cache, target: CopyTarget): Promise<void> {
  const { resources, layout, empty, slotBytes } = target;
  const { layout: theirs } = other;
  const source = new Uint32Array(
    await readBuffer(gpu, other.resources.get("extents")!, 0, empty.byteLength),
  );
  const extents = empty.slice();
  layout.layers.forEach((layer, index) => dealOut(layer, extents, source, index * layout.kvHeads));
  const encoder = gpu.device.createCommandEncoder();
  const copy = (name: string, from: number, to: number, bytes: number, otherName = name): void => {
    if (bytes > 0) {
      encoder.copyBufferToBuffer(
        other.resources.get(otherName)!,
        from,
        resources.get(name)!,
        to,
        bytes,
      );
    }
  };
  for (const [index, layer] of layout.layers.entries()) {
    const saved = sinkKeysName(index);
    if (resources.has(saved)) copy(saved, 0, 0, resources.get(saved)!.size);
    const seen = new Set<number>();
    for (let head = 0; head < layout.kvHeads; head++) {
      const at = (index * layout.kvHeads + head) * EXTENT_WORDS;
      const [base, capacity, , length, positions, freeFirst, freeCount, frozen] = source.subarray(at, at + 8);
      if (length > extents[at + 1]) {
        throw new RangeError(
          `Cannot copy ${length} slots of a KV cache: there is room for ${extents[at + 1]}`,
        );
      }
      // Over there slots may have been dealt out among the heads since.
      const from = arenaOf(theirs.layers[index], head);
      const to = arenaOf(layer, head);
      const bytes = slotBytes(index);
      for (const part of ["keys", "values"] as const) {
        copy(
          arenaName(`kv.${index}`, part, to),
          base * bytes,
          extents[at] * bytes,
          length * bytes,
          arenaName(`kv.${index}`, part, from),
        );
      }
      extents.set([length, length], at + 2);
      extents.set([0, freeCount, frozen], at + 5);
      const target = extents[at + 4];
      if (seen.has(target)) continue;
      seen.add(target);
      for (const [name, size] of [["slotPositions", 4], ["slotScores", 4], ["slotSums", 8]] as const) {
        if (resources.has(name)) copy(name, positions * size, target * size, length * size);
      }
      // The ring of freed slots is laid out anew from entry 0 on.
      const unwrapped = Math.min(freeCount, capacity - freeFirst);
      if (freeCount > 0) {
        copy("freedSlots", (positions + freeFirst) * 4, target * 4, unwrapped * 4);
        copy("freedSlots", positions * 4, (target + unwrapped) * 4, (freeCount - unwrapped) * 4);
      }
    }
  }
  gpu.device.queue.submit([encoder.finish()]);
  gpu.device.queue.writeBuffer(resources.get("extents")!, 0, extents);
}

/**
 * Where heads of sequence 0 have different lengths in `source`, gives each of them as many slots more than that, out of
 * those that they have together.
 */
function dealOut(layer: KvLayer, extents: Uint32Array, source: Uint32Array, first: number): void {
  const heads = layer.arenas[0].heads;
  const at = (head: number) => (first + head) * EXTENT_WORDS;
  const lengths = Array.from({ length: heads }, (_, head) => source[at(head) + 3]);
  if (!layer.own || layer.arenas.length > 1 || lengths.every((length) => length === lengths[0])) return;
  const used = lengths.reduce((a, b) => a + b, 0);
  const [base, capacity, , , positions] = extents.subarray(at(0), at(0) + EXTENT_WORDS);
  if (used > capacity * heads) return; // There is no room, and the copy says so.
  const room = Math.floor((capacity * heads - used) / heads);
  let next = 0;
  lengths.forEach((length, head) => {
    extents.set([base + next, length + room], at(head));
    extents[at(head) + 4] = positions + next;
    next += length + room;
  });
}

/** Arena of a KV head. */
function arenaOf(layer: KvLayer, head: number): number {
  return layer.arenas.findIndex(({ firstHead, heads }) => head < firstHead + heads);
}
