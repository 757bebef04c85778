import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Cache, createKvCache, kvCacheBytes, type KvCacheSpec } from "../../lib/cache/mod.ts";
import { GpuMemoryError, openGpu, readBuffer } from "../../lib/gpu/mod.ts";
import { type CacheRequest, storageBytes } from "../../lib/graph/mod.ts";
import { arenaName, KV_CACHE, kvArenas, kvSizes } from "../../lib/ops/mod.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";

const gpu = await sharedGpu();

/** Layers with these head sizes. */
function requests(kvHeads: number, headSizes: readonly number[]): CacheRequest[] {
  return headSizes.map((headSize, layer) => ({ kind: KV_CACHE, layer, sizes: { kvHeads, headSize } }));
}

const SPECS: Record<string, KvCacheSpec> = {
  "one sequence": { requests: requests(2, [8]), capacities: [10], dtype: "f32", bindingBytes: 2 ** 20 },
  "several sequences": {
    requests: requests(3, [8, 8]),
    capacities: [5, 1, 9],
    dtype: "f16",
    bindingBytes: 2 ** 20,
  },
  "two heads an arena": {
    requests: requests(5, [8, 8]),
    capacities: [4, 7],
    dtype: "f32",
    bindingBytes: 11 * 32 * 2,
  },
  "one head an arena": {
    requests: requests(3, [12]),
    capacities: [3, 2, 2],
    dtype: "f16",
    bindingBytes: 7 * 24,
  },
  "layers of other head sizes": {
    requests: requests(4, [4, 16, 8]),
    capacities: [6, 3],
    dtype: "f32",
    bindingBytes: 9 * 64 * 2,
  },
  "an empty sequence": {
    requests: requests(2, [8, 8]),
    capacities: [0, 4],
    dtype: "f32",
    bindingBytes: 2 ** 20,
  },
};

interface Extent {
  readonly base: number;
  readonly capacity: number;
  readonly start: number;
  readonly length: number;
  readonly positions: number;
}

/** The table of extents by layer, sequence and head. */
async function extentsOf(cache: Cache, spec: KvCacheSpec): Promise<Extent[][][]> {
  const { kvHeads } = kvSizes(spec.requests[0]);
  const count = spec.requests.length * spec.capacities.length * kvHeads;
  const data = await readBuffer(gpu, cache.resources.get("extents")!, 0, count * EXTENT_WORDS * 4);
  const words = new Uint32Array(data);
  return spec.requests.map((_, layer) =>
    spec.capacities.map((_, sequence) =>
      Array.from({ length: kvHeads }, (_, head) => {
        const at = ((layer * spec.capacities.length + sequence) * kvHeads + head) * EXTENT_WORDS;
        const [base, capacity, start, length, positions] = words.subarray(at, at + 5);
        return { base, capacity, start, length, positions };
      })
    )
  );
}

for (const [name, spec] of Object.entries(SPECS)) {
  Deno.test(`createKvCache() gives no slot to two owners (${name})`, async () => {
    const cache = await createKvCache(gpu, spec);
    const extents = await extentsOf(cache, spec);
    const slots = spec.capacities.reduce((a, b) => a + b, 0);
    for (const request of spec.requests) {
      const sizes = kvSizes(request);
      const slotBytes = sizes.headSize * storageBytes(spec.dtype);
      const arenas = kvArenas(sizes, slots, spec.dtype, spec.bindingBytes);
      for (const [i, arena] of arenas.entries()) {
        const buffers = (["keys", "values"] as const).map((part) =>
          cache.resources.get(arenaName(request.layer, part, i))!
        );
        assert(buffers[0] !== buffers[1]);
        for (const buffer of buffers) {
          assert(buffer.size <= Math.max(16, Math.ceil(spec.bindingBytes / 16) * 16));
        }
        const taken = new Set<number>();
        for (let head = arena.firstHead; head < arena.firstHead + arena.heads; head++) {
          for (const [sequence, capacity] of spec.capacities.entries()) {
            const extent = extents[request.layer][sequence][head];
            assertEquals([extent.capacity, extent.start, extent.length], [capacity, 0, 0]);
            for (let slot = extent.base; slot < extent.base + capacity; slot++) {
              assert(!taken.has(slot), `slot ${slot} of arena ${i} has two owners`);
              taken.add(slot);
            }
          }
        }
        assertEquals(taken.size, arena.heads * slots);
        for (const slot of taken) {
          assert((slot + 1) * slotBytes <= buffers[0].size, `slot ${slot} is outside`);
        }
      }
    }
    // Positions are one table for all layers and heads, a range a sequence.
    let first = 0;
    for (const [sequence, capacity] of spec.capacities.entries()) {
      for (const layer of extents) {
        for (const { positions } of layer[sequence]) assertEquals(positions, first);
      }
      first += capacity;
    }
    assert(cache.resources.get("slotPositions")!.size >= first * 4);
    cache.release();
  });

  Deno.test(`createKvCache() allocates to the byte what kvCacheBytes() says (${name})`, async () => {
    const held = () => gpu.memory.holders().cache ?? 0;
    const before = held();
    const all = gpu.memory.bytes;
    const cache = await createKvCache(gpu, spec);
    assertEquals(held() - before, cache.bytes);
    const { layers, bytes } = kvCacheBytes(spec);
    assertEquals([cache.bytes, cache.layers], [bytes, layers]);
    assertEquals(layers.reduce((sum, { cacheBytes, stateBytes }) => sum + cacheBytes + stateBytes, 0), bytes);
    assertEquals(layers.map(({ index }) => index), spec.requests.map(({ layer }) => layer));
    cache.release();
    assertEquals([held(), gpu.memory.bytes], [before, all]);
  });
}

Deno.test("createKvCache() over the ceiling allocates nothing", async () => {
  using small = await openGpu({ memory: 2000 });
  const spec: KvCacheSpec = { ...SPECS["one sequence"], capacities: [100] };
  await assertRejects(
    () => createKvCache(small, spec),
    GpuMemoryError,
    "for the KV cache: the memory ceiling is 1.95 KiB",
  );
  assertEquals([small.memory.bytes, small.memory.peak], [0, 0]);
  // Enough for keys and values, not for the table of extents.
  using tight = await openGpu({ memory: kvCacheBytes(spec).bytes });
  await assertRejects(() => createKvCache(tight, spec), GpuMemoryError, "for extents");
  assertEquals(tight.memory.bytes, 0);
});

Deno.test("createKvCache() of layers that keep nothing takes no cache", async () => {
  const before = gpu.memory.holders().cache;
  const other: CacheRequest = { kind: "state", layer: 0, sizes: {} };
  const cache = await createKvCache(gpu, {
    requests: [other],
    capacities: [4],
    dtype: "f32",
    bindingBytes: 1024,
  });
  assertEquals([cache.bytes, cache.layers, [...cache.resources.keys()]], [0, [], ["extents"]]);
  assertEquals(gpu.memory.holders().cache, before);
  cache.copyFrom(cache, 3);
  cache.reset();
  cache.release();
});

/** Fills keys, values and positions with numbers that tell all slots apart; gives the arenas' words by name. */
function fill(cache: Cache, seed: number): Map<string, Uint32Array<ArrayBuffer>> {
  const content = new Map<string, Uint32Array<ArrayBuffer>>();
  let at = seed;
  for (const [name, buffer] of cache.resources) {
    if (name === "extents") continue;
    const words = Uint32Array.from(randomArray(buffer.size / 4, at++), (x) => (x + 1) * 2 ** 31);
    gpu.device.queue.writeBuffer(buffer, 0, words);
    content.set(name, words);
  }
  return content;
}

Deno.test("copyFrom() finds every slot in a cache of another capacity and splitting", async () => {
  for (const dtype of ["f16", "f32"] as const) {
    const [kvHeads, headSizes] = [3, [8, 4]];
    const specOf = (capacity: number): KvCacheSpec => ({
      requests: requests(kvHeads, headSizes),
      capacities: [capacity],
      dtype,
      // 20 slots stand two heads to an arena, 7 slots all in one.
      bindingBytes: 2 * 20 * 8 * storageBytes(dtype),
    });
    for (const [from, to, length] of [[20, 7, 5], [7, 20, 7], [20, 20, 0], [20, 20, 20]]) {
      const [source, target] = [await createKvCache(gpu, specOf(from)), await createKvCache(gpu, specOf(to))];
      if (from !== to) assert(source.resources.size !== target.resources.size, "both are split alike");
      const content = fill(source, 1);
      const old = fill(target, 100);
      target.copyFrom(source, length);
      for (const [layer, headSize] of headSizes.entries()) {
        const words = headSize * storageBytes(dtype) / 4;
        const places = (capacity: number) =>
          kvArenas({ kvHeads, headSize }, capacity, dtype, specOf(0).bindingBytes).flatMap((arena, index) =>
            Array.from({ length: arena.heads }, (_, i) => ({ index, first: i * capacity * words }))
          );
        for (const part of ["keys", "values"] as const) {
          const arenas = new Map<number, Uint32Array>();
          for (const [head, place] of places(to).entries()) {
            const name = arenaName(layer, part, place.index);
            if (!arenas.has(place.index)) {
              const buffer = target.resources.get(name)!;
              arenas.set(place.index, new Uint32Array(await readBuffer(gpu, buffer, 0, buffer.size)));
            }
            const got = arenas.get(place.index)!.subarray(place.first, place.first + to * words);
            const origin = places(from)[head];
            const copied = content.get(arenaName(layer, part, origin.index))!.subarray(origin.first);
            assertEquals(got.subarray(0, length * words), copied.subarray(0, length * words));
            const kept = old.get(name)!.subarray(place.first + length * words, place.first + to * words);
            assertEquals(got.subarray(length * words), kept, "slots after the length are touched");
          }
        }
      }
      const positions = await readBuffer(gpu, target.resources.get("slotPositions")!, 0, length * 4);
      assertEquals(new Uint32Array(positions), content.get("slotPositions")!.subarray(0, length));
      for (const layer of await extentsOf(target, specOf(to))) {
        for (const extent of layer[0]) {
          assertEquals([extent.capacity, extent.start, extent.length], [to, length, length]);
        }
      }
      source.release();
      target.release();
    }
  }
});

Deno.test("copyFrom() refuses a length that one of the two has no room for", async () => {
  const make = (capacity: number) => createKvCache(gpu, { ...SPECS["one sequence"], capacities: [capacity] });
  const [small, large] = [await make(4), await make(9)];
  const message = "Cannot copy 5 slots of a KV cache: the smaller of the two has 4";
  assertThrows(() => small.copyFrom(large, 5), RangeError, message);
  assertThrows(() => large.copyFrom(small, 5), RangeError, message);
  small.release();
  large.release();
});

Deno.test("reset() forgets all sequences, and what is mutable brings them back", async () => {
  const spec = SPECS["several sequences"];
  const cache = await createKvCache(gpu, spec);
  const empty = await extentsOf(cache, spec);
  const used = new Uint32Array(cache.resources.get("extents")!.size / 4).fill(7);
  gpu.device.queue.writeBuffer(cache.resources.get("extents")!, 0, used);
  const saved = await Promise.all(
    cache.mutable.map(({ buffer, offset, size }) => readBuffer(gpu, buffer, offset, size)),
  );
  cache.reset();
  assertEquals(await extentsOf(cache, spec), empty);
  cache.mutable.forEach(({ buffer, offset }, i) => gpu.device.queue.writeBuffer(buffer, offset, saved[i]));
  for (const layer of await extentsOf(cache, spec)) {
    for (const extent of layer.flat()) assertEquals(Object.values(extent), [7, 7, 7, 7, 7]);
  }
  cache.release();
});
