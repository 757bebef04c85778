// Keys and values of softmax attention: arenas of slots by layer, and a table of extents by layer, sequence and head.

import { type Gpu, type GpuAllocation, readBuffer } from "../gpu/mod.ts";
import { storageBytes } from "../graph/mod.ts";
import { arenaName, sinkKeysName } from "../ops/mod.ts";
import { EXTENT_WORDS, NONE } from "../../wgsl/tables.ts";
import type { Cache, LayerTokens } from "./cache.ts";
import { copyKeyValues } from "./copy_kv.ts";
import { extentTable, kvCacheBytes, type KvCacheSpec, kvLayout, kvTableBytes } from "./kv_layout.ts";

/**
 * Allocates the arenas and the tables. Bytes of keys and values are counted as cache, those of the tables beside them as
 * activations.
 *
 * @throws {GpuMemoryError} when it does not fit; nothing stays allocated then.
 */
export async function createKvCache(gpu: Gpu, spec: KvCacheSpec): Promise<Cache> {
  const { layers, bytes, tableBytes } = kvCacheBytes(spec);
  gpu.memory.require(bytes + tableBytes, "the KV cache");
  const layout = kvLayout(spec);
  const sequences = spec.capacities.length;
  const held: GpuAllocation[] = [];
  const resources = new Map<string, GPUBuffer>();
  const allocate = async (name: string, size: number, owner: string): Promise<void> => {
    const allocation = await gpu.memory.allocate({
      label: name,
      owner,
      size,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    held.push(allocation);
    resources.set(name, allocation.buffer);
  };
  const release = () => {
    for (const allocation of held) allocation.release();
  };
  const tables = kvTableBytes(layout, sequences);
  try {
    for (const { request, arenas, headBytes } of layout.layers) {
      for (const [i, arena] of arenas.entries()) {
        for (const part of ["keys", "values"] as const) {
          await allocate(arenaName(`kv.${request.layer}`, part, i), arena.heads * headBytes, "cache");
        }
      }
    }
    for (const [name, size] of Object.entries(tables)) await allocate(name, size, "activations");
    const empty = extentTable(layout, sequences);
    const extents = resources.get("extents");
    const reset = () => {
      if (extents) gpu.device.queue.writeBuffer(extents, 0, empty);
    };
    reset();
    // Without ragged layers slots are only ever appended, and positions behind a length mean nothing.
    // What is saved of a sink stays, and is saved again should it be another.
    const saved = new Set(layout.layers.map(({ request }) => sinkKeysName(request.layer)));
    const mutable = Object.keys(tables).filter((name) =>
      (layout.ragged && !saved.has(name)) || name === "extents"
    );
    const readExtents = async () =>
      extents ? new Uint32Array(await readBuffer(gpu, extents, 0, empty.byteLength)) : new Uint32Array();
    return {
      bytes,
      tableBytes,
      layers,
      resources,
      mutable: mutable.map((name) => ({ buffer: resources.get(name)!, offset: 0, size: tables[name] })),
      reset,
      async tokens(): Promise<LayerTokens[][]> {
        const words = await readExtents();
        return layout.layers.map(({ request }) =>
          spec.capacities.map((_, sequence) => {
            const heads = Array.from({ length: layout.kvHeads }, (_, head) => {
              const at = ((request.layer * sequences + sequence) * layout.kvHeads + head) * EXTENT_WORDS;
              return { used: words[at + 3], live: words[at + 3] - words[at + 6] };
            });
            return {
              used: Math.max(...heads.map(({ used }) => used)),
              live: heads.reduce((all, { live }) => all + live, 0) / heads.length,
            };
          })
        );
      },
      async positions(sequence: number): Promise<number[][][]> {
        if (!extents) return [];
        const words = await readExtents();
        const data = await readBuffer(gpu, resources.get("slotPositions")!, 0, tables.slotPositions);
        const positions = new Uint32Array(data);
        return layout.layers.map(({ request }) =>
          Array.from({ length: layout.kvHeads }, (_, head) => {
            const at = ((request.layer * sequences + sequence) * layout.kvHeads + head) * EXTENT_WORDS;
            const [length, first] = [words[at + 3], words[at + 4]];
            return [...positions.subarray(first, first + length)].filter((position) => position !== NONE)
              .sort((a, b) => a - b);
          })
        );
      },
      async copyFrom(other: Cache): Promise<void> {
        if (extents) await copyKeyValues(gpu, other, { resources, layout, empty, slotBytes });
      },
      layout,
      release,
    };
  } catch (error) {
    release();
    throw error;
  }

  function slotBytes(layer: number): number {
    return layout.layers[layer].request.sizes.headSize * storageBytes(spec.dtype);
  }
}
