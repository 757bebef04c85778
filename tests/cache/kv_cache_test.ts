import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Cache, createKvCache, kvCacheBytes, type KvCacheSpec, kvLayout } from "../../lib/cache/mod.ts";
import { type Gpu, GpuMemoryError, openGpu, readBuffer } from "../../lib/gpu/mod.ts";
import { type CacheRequest, storageBytes, type Turn } from "../../lib/graph/mod.ts";
import { arenaName, KV_CACHE, kvArenas, kvSizes, ownPositions } from "../../lib/ops/mod.ts";
import { EXTENT_WORDS, NONE } from "../../wgsl/tables.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";

const gpu = await sharedGpu();

/** Layers with these head sizes. */
function requests(kvHeads: number, headSizes: readonly number[]): CacheRequest[] {
  return headSizes.map((headSize, layer) => ({ kind: KV_CACHE, layer, sizes: { kvHeads, headSize } }));
}

/**
 * Three layers: one keeps half of a turn in slots that its heads share, with scores; one keeps everything; one keeps a
 * third of a turn in slots of each head, with sums.
 */
function prunedRequests(kvHeads: number): CacheRequest[] {
  const shares = (parts: number) => ({ tokens, maxTokens }: Turn) => ({
    stored: Math.ceil(tokens / parts),
    capacity: Math.ceil((tokens + maxTokens) / parts),
  });
  const sizes = { kvHeads, headSize: 8 };
  return [
    { kind: KV_CACHE, layer: 0, sizes: { ...sizes, scores: 1 }, keeps: shares(2) },
    { kind: KV_CACHE, layer: 1, sizes },
    {
      kind: KV_CACHE,
      layer: 2,
      sizes: { ...sizes, headSize: 4, ownPositions: 1, sums: 1 },
      keeps: shares(3),
    },
  ];
}

const turn = (tokens: number, maxTokens: number): Turn => ({ tokens, maxTokens, position: 0 });

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
  "heads that could keep tokens of their own and keep all": {
    requests: requests(2, [8, 8]).map((request) => ({
      ...request,
      sizes: { ...request.sizes, ownPositions: 1 },
    })),
    capacities: [5, 4],
    dtype: "f32",
    bindingBytes: 2 ** 20,
  },
  "layers that keep less": {
    requests: prunedRequests(3),
    capacities: [30, 11, 7],
    turns: [turn(20, 10), turn(1, 10), turn(6, 1)],
    dtype: "f16",
    bindingBytes: 2 ** 20,
  },
  "layers that keep less, with a reserve and several arenas": {
    requests: prunedRequests(3),
    capacities: [30, 11],
    turns: [turn(20, 10), turn(1, 10)],
    reserve: 5,
    dtype: "f32",
    bindingBytes: 2 * 31 * 32,
  },
};
/** Slots of each sequence, by layer. */
const CAPACITIES: Record<string, readonly (readonly number[])[]> = {
  "layers that keep less": [[15, 6, 4], [30, 11, 7], [10, 4, 3]],
  "layers that keep less, with a reserve and several arenas": [[20, 11], [30, 11], [15, 9]],
};

interface Extent {
  readonly base: number;
  readonly capacity: number;
  readonly start: number;
  readonly length: number;
  readonly positions: number;
  readonly freeFirst: number;
  readonly freeCount: number;
  readonly frozen: number;
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
        const [base, capacity, start, length, positions, freeFirst, freeCount, frozen] = words.subarray(
          at,
          at + 8,
        );
        return { base, capacity, start, length, positions, freeFirst, freeCount, frozen };
      })
    )
  );
}

/** Writes what steps would have made of the extents. */
async function changeExtents(
  cache: Cache,
  spec: KvCacheSpec,
  change: (extent: Extent, layer: number, sequence: number, head: number) => Partial<Extent>,
): Promise<void> {
  const words = (await extentsOf(cache, spec)).flatMap((sequences, layer) =>
    sequences.flatMap((heads, sequence) =>
      heads.flatMap((before, head) => {
        const { base, capacity, start, length, positions, freeFirst, freeCount, frozen } = {
          ...before,
          ...change(before, layer, sequence, head),
        };
        return [base, capacity, start, length, positions, freeFirst, freeCount, frozen];
      })
    )
  );
  gpu.device.queue.writeBuffer(cache.resources.get("extents")!, 0, Uint32Array.from(words));
}

/** Tables with an entry a slot, and the words of an entry. */
const SLOT_TABLES = { slotPositions: 1, freedSlots: 1, slotScores: 1, slotSums: 2 };

for (const [name, spec] of Object.entries(SPECS)) {
  const ragged = spec.turns !== undefined;

  Deno.test(`createKvCache() gives no slot to two owners (${name})`, async () => {
    const cache = await createKvCache(gpu, spec);
    const extents = await extentsOf(cache, spec);
    for (const request of spec.requests) {
      const sizes = kvSizes(request);
      const capacities = CAPACITIES[name]?.[request.layer] ?? spec.capacities;
      const slots = capacities.reduce((a, b) => a + b, 0);
      const slotBytes = sizes.headSize * storageBytes(spec.dtype);
      const arenas = kvArenas(sizes, slots, spec.dtype, spec.bindingBytes);
      for (const [i, arena] of arenas.entries()) {
        const buffers = (["keys", "values"] as const).map((part) =>
          cache.resources.get(arenaName(`kv.${request.layer}`, part, i))!
        );
        assert(buffers[0] !== buffers[1]);
        for (const buffer of buffers) {
          assert(buffer.size <= Math.max(16, Math.ceil(spec.bindingBytes / 16) * 16));
        }
        const taken = new Set<number>();
        for (let head = arena.firstHead; head < arena.firstHead + arena.heads; head++) {
          for (const [sequence, capacity] of capacities.entries()) {
            const { base, capacity: got, positions: _, ...rest } = extents[request.layer][sequence][head];
            assertEquals(got, capacity);
            assertEquals(rest, { start: 0, length: 0, freeFirst: 0, freeCount: 0, frozen: 0 });
            for (let slot = base; slot < base + capacity; slot++) {
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
    cache.release();
  });

  Deno.test(`createKvCache() has an entry in the tables for every slot (${name})`, async () => {
    const cache = await createKvCache(gpu, spec);
    const extents = await extentsOf(cache, spec);
    let entries = 0;
    if (ragged) {
      const taken = new Set<number>();
      for (const request of spec.requests) {
        for (const heads of extents[request.layer]) {
          for (const { positions, capacity } of ownPositions(request) ? heads : heads.slice(0, 1)) {
            for (let i = 0; i < capacity; i++) {
              assert(!taken.has(positions + i), `entry ${positions + i} has two owners`);
              taken.add(positions + i);
            }
          }
          if (!ownPositions(request)) {
            for (const { positions } of heads) assertEquals(positions, heads[0].positions);
            continue;
          }
          // What the heads of a sequence have in one arena can be dealt out again.
          assertEquals(kvLayout(spec).layers[request.layer].arenas.length, 1);
          for (const [head, { base, capacity, positions }] of heads.entries()) {
            assertEquals(positions, heads[0].positions + head * capacity);
            assertEquals(base, heads[0].base + head * capacity);
          }
        }
      }
      entries = taken.size;
      assertEquals(Math.max(...taken), entries - 1);
    } else {
      // Positions are one table for all layers and heads, a range a sequence.
      for (const [sequence, capacity] of spec.capacities.entries()) {
        for (const layer of extents) {
          for (const { positions } of layer[sequence]) assertEquals(positions, entries);
        }
        entries += capacity;
      }
    }
    const tables = ragged ? Object.keys(SLOT_TABLES) : ["slotPositions"];
    assertEquals(
      [...cache.resources.keys()].filter((table) => !table.startsWith("kv.")).sort(),
      ["extents", ...tables].sort(),
    );
    for (const [table, words] of Object.entries(SLOT_TABLES)) {
      const buffer = cache.resources.get(table);
      if (buffer) assertEquals(buffer.size, Math.max(16, Math.ceil(entries * words / 4) * 16));
    }
    cache.release();
  });

  Deno.test(`createKvCache() allocates to the byte what kvCacheBytes() says (${name})`, async () => {
    const held = () => {
      const { cache = 0, activations = 0 } = gpu.memory.holders();
      return { cache, activations };
    };
    const before = held();
    const all = gpu.memory.bytes;
    const cache = await createKvCache(gpu, spec);
    const after = held();
    assertEquals(
      [after.cache - before.cache, after.activations - before.activations],
      [cache.bytes, cache.tableBytes],
    );
    const { layers, bytes, tableBytes } = kvCacheBytes(spec);
    assertEquals([cache.bytes, cache.tableBytes, cache.layers], [bytes, tableBytes, layers]);
    assertEquals(layers.reduce((sum, { cacheBytes, stateBytes }) => sum + cacheBytes + stateBytes, 0), bytes);
    assertEquals(layers.map(({ index }) => index), spec.requests.map(({ layer }) => layer));
    for (const { index, capacity } of layers) {
      const capacities = CAPACITIES[name]?.[index] ?? spec.capacities;
      assertEquals(capacity, capacities.reduce((a, b) => a + b, 0));
    }
    cache.release();
    assertEquals([held(), gpu.memory.bytes], [before, all]);
  });
}

Deno.test("kvCacheBytes() counts keys and values alone, and the tables beside them", () => {
  const { bytes, tableBytes } = kvCacheBytes({
    requests: prunedRequests(3),
    capacities: [32],
    turns: [turn(44, 4)],
    reserve: 4,
    dtype: "f16",
    bindingBytes: 2 ** 20,
  });
  const slots = [24 + 4, 32, 16 + 4];
  assertEquals(bytes, 2 * 2 * 3 * (slots[0] * 8 + slots[1] * 8 + slots[2] * 4));
  // Positions, freed slots and scores of 4 bytes, sums of 8, and the extents of 32.
  const entries = slots[0] + slots[1] + 3 * slots[2];
  assertEquals(tableBytes, entries * 20 + 9 * 32);
});

Deno.test("kvLayout() rejects layers that keep less when the turns are not given", () => {
  const { turns: _, ...spec } = SPECS["layers that keep less"];
  assertThrows(() => kvLayout(spec), TypeError, "needs the turns");
});

Deno.test("createKvCache() over the ceiling allocates nothing", async () => {
  using small = await openGpu({ memory: 2000 });
  const spec: KvCacheSpec = { ...SPECS["one sequence"], capacities: [100] };
  await assertRejects(
    () => createKvCache(small, spec),
    GpuMemoryError,
    "for the KV cache: the memory ceiling is 1.95 KiB",
  );
  assertEquals([small.memory.bytes, small.memory.peak], [0, 0]);
  // Enough for keys and values, not for the tables.
  const { bytes, tableBytes } = kvCacheBytes(spec);
  using tight = await openGpu({ memory: bytes + tableBytes - 1 });
  await assertRejects(() => createKvCache(tight, spec), GpuMemoryError, "for the KV cache");
  assertEquals([tight.memory.bytes, tight.memory.peak], [0, 0]);
  using enough = await openGpu({ memory: bytes + tableBytes });
  const cache = await createKvCache(enough, spec);
  assertEquals(enough.memory.bytes, bytes + tableBytes);
  cache.release();
});

Deno.test("createKvCache() leaves nothing when any of its allocations fails", async () => {
  const spec = SPECS["layers that keep less"];
  const before = gpu.memory.bytes;
  // Three layers of keys and values, and five tables.
  for (let works = 0; works < 11; works++) {
    let left = works;
    const memory: Gpu["memory"] = Object.create(gpu.memory, {
      allocate: {
        value: (request: Parameters<Gpu["memory"]["allocate"]>[0]) =>
          left-- > 0
            ? gpu.memory.allocate(request)
            : Promise.reject(new GpuMemoryError(`No room for ${request.label}`)),
      },
    });
    const failing: Gpu = Object.create(gpu, { memory: { value: memory } });
    await assertRejects(() => createKvCache(failing, spec), GpuMemoryError, "No room for");
    assertEquals(gpu.memory.bytes, before);
  }
});

Deno.test("createKvCache() of layers that keep nothing takes no memory", async () => {
  const before = gpu.memory.bytes;
  const other: CacheRequest = { kind: "state", layer: 0, sizes: {} };
  const cache = await createKvCache(gpu, {
    requests: [other],
    capacities: [4],
    dtype: "f32",
    bindingBytes: 1024,
  });
  assertEquals([cache.bytes, cache.tableBytes, cache.layers, cache.resources.size], [0, 0, [], 0]);
  assertEquals(gpu.memory.bytes, before);
  await cache.copyFrom(cache);
  cache.reset();
  assertEquals([await cache.tokens(), await cache.positions(0)], [[], []]);
  cache.release();
});

type Content = Map<string, Uint32Array<ArrayBuffer>>;

/** Fills everything but the extents with numbers that tell all slots apart. */
function fill(cache: Cache, seed: number): void {
  let at = seed;
  for (const [name, buffer] of cache.resources) {
    if (name === "extents") continue;
    const words = Uint32Array.from(randomArray(buffer.size / 4, at++), (x) => (x + 1) * 2 ** 31);
    gpu.device.queue.writeBuffer(buffer, 0, words);
  }
}

/** The words of all buffers by name. */
async function contentOf(cache: Cache): Promise<Content> {
  return new Map(
    await Promise.all(
      [...cache.resources].map(async ([name, buffer]) =>
        [name, new Uint32Array(await readBuffer(gpu, buffer, 0, buffer.size))] as const
      ),
    ),
  );
}

Deno.test("tokens() counts slots in use and tokens that were not evicted", async () => {
  const spec = SPECS["layers that keep less"];
  const cache = await createKvCache(gpu, spec);
  await changeExtents(cache, spec, ({ capacity }, layer, sequence, head) => {
    if (sequence === 1) return {};
    // Heads of the last layer have their own tokens.
    const own = layer === 2 ? head : 0;
    return { length: capacity - 1 - own, freeCount: own };
  });
  const none = { used: 0, live: 0 };
  assertEquals(await cache.tokens(), [
    [{ used: 14, live: 14 }, none, { used: 3, live: 3 }],
    [{ used: 29, live: 29 }, none, { used: 6, live: 6 }],
    [{ used: 9, live: 7 }, none, { used: 2, live: 0 }],
  ]);
  cache.reset();
  assertEquals((await cache.tokens()).flat(), new Array(9).fill(none));
  cache.release();
});

Deno.test("positions() lists the tokens that each head keeps of a sequence", async () => {
  for (const name of ["several sequences", "layers that keep less"]) {
    const spec = SPECS[name];
    const cache = await createKvCache(gpu, spec);
    const table = new Uint32Array(cache.resources.get("slotPositions")!.size / 4).fill(77);
    const want: number[][][][] = [];
    await changeExtents(cache, spec, ({ positions, capacity }, layer, sequence, head) => {
      const own = spec.requests[layer].sizes.ownPositions ? head : 0;
      const length = Math.max(0, capacity - 1 - own);
      // In no order, with an evicted one; heads and layers that share their positions write the same.
      const slots = Array.from(
        { length },
        (_, i) => spec.turns && i % 4 === 2 ? NONE : 100 * (positions + 1) + (i * 7 + 3) % 11 + i,
      );
      table.set(slots, positions);
      const heads = (want[sequence] ??= [])[layer] ??= [];
      heads[head] = slots.filter((position) => position !== NONE).toSorted((a, b) => a - b);
      return { length };
    });
    gpu.device.queue.writeBuffer(cache.resources.get("slotPositions")!, 0, table);
    for (const [sequence, layers] of want.entries()) {
      assertEquals(await cache.positions(sequence), layers, `${name}, sequence ${sequence}`);
    }
    assert(want.flat(3).length > 20);
    cache.release();
  }
});

/** What stands at each slot of each head, and the ring of freed slots in its order; sequence 0. */
function slotsOf(content: Content, extents: Extent[][][], spec: KvCacheSpec) {
  const layout = kvLayout(spec);
  return spec.requests.map((request) => {
    const { headSize } = kvSizes(request);
    const words = headSize * storageBytes(spec.dtype) / 4;
    return extents[request.layer][0].map((extent, head) => {
      const { base, capacity, positions, freeFirst, freeCount } = extent;
      const arena = layout.layers[request.layer].arenas.findIndex(({ firstHead, heads }) =>
        head < firstHead + heads
      );
      const entry = (
        name: string,
        width: number,
        at: number,
      ) => [...content.get(name)?.subarray(at * width, (at + 1) * width) ?? []];
      return {
        slots: Array.from({ length: capacity }, (_, slot) => [
          entry(arenaName(`kv.${request.layer}`, "keys", arena), words, base + slot),
          entry(arenaName(`kv.${request.layer}`, "values", arena), words, base + slot),
          entry("slotPositions", 1, positions + slot),
          entry("slotScores", 1, positions + slot),
          entry("slotSums", 2, positions + slot),
        ]),
        freed: Array.from(
          { length: freeCount },
          (_, i) => entry("freedSlots", 1, positions + (freeFirst + i) % capacity),
        ),
      };
    });
  });
}

/** Extents of a layer; heads of different lengths, all in one arena, get as much room besides. */
function dealtOut(empty: Extent[], lengths: number[], spec: KvCacheSpec, layer: number): Extent[] {
  const { arenas } = kvLayout(spec).layers[layer];
  const own = spec.requests[layer].sizes.ownPositions === 1 && arenas.length === 1;
  if (!own || new Set(lengths).size === 1) return empty;
  const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
  const room = Math.floor((sum(empty.map(({ capacity }) => capacity)) - sum(lengths)) / lengths.length);
  return empty.map((extent, head) => {
    const moved = sum(lengths.slice(0, head)) + head * room;
    const { base, positions } = empty[0];
    return { ...extent, base: base + moved, positions: positions + moved, capacity: lengths[head] + room };
  });
}

/** Checks that what one cache has of sequence 0, and nothing else, is in another one afterwards. */
async function checkCopy(
  [source, sourceSpec]: [Cache, KvCacheSpec],
  [target, targetSpec]: [Cache, KvCacheSpec],
): Promise<void> {
  const before = await contentOf(source);
  const sourceExtents = await extentsOf(source, sourceSpec);
  const empty = await extentsOf(target, targetSpec);
  const earlier = await contentOf(target);
  await target.copyFrom(source);
  const extents = await extentsOf(target, targetSpec);
  const old = slotsOf(earlier, extents, targetSpec);
  const from = slotsOf(before, sourceExtents, sourceSpec);
  const to = slotsOf(await contentOf(target), extents, targetSpec);
  for (const [layer, heads] of to.entries()) {
    for (const [head, { slots, freed }] of heads.entries()) {
      const what = `layer ${layer}, head ${head}`;
      const lengths = sourceExtents[layer][0].map(({ length }) => length);
      const { base, capacity, positions } = dealtOut(empty[layer][0], lengths, targetSpec, layer)[head];
      const { length, freeCount, frozen } = sourceExtents[layer][0][head];
      const { freeFirst: _, ...rest } = extents[layer][0][head];
      assertEquals(rest, { base, capacity, positions, start: length, length, freeCount, frozen }, what);
      assertEquals(slots.slice(0, length), from[layer][head].slots.slice(0, length), what);
      assertEquals(slots.slice(length), old[layer][head].slots.slice(length), `${what}: behind the length`);
      assertEquals(freed, from[layer][head].freed, what);
    }
  }
  assertEquals(await contentOf(source), before);
}

Deno.test("copyFrom() finds every slot in a cache of another capacity and splitting", async () => {
  for (const dtype of ["f16", "f32"] as const) {
    const specOf = (capacity: number): KvCacheSpec => ({
      requests: requests(3, [8, 4]),
      capacities: [capacity],
      dtype,
      // 20 slots stand two heads to an arena, 7 slots all in one.
      bindingBytes: 2 * 20 * 8 * storageBytes(dtype),
    });
    for (const [from, to, length] of [[20, 7, 5], [7, 20, 7], [20, 20, 0], [20, 20, 20]]) {
      const [source, target] = [await createKvCache(gpu, specOf(from)), await createKvCache(gpu, specOf(to))];
      if (from !== to) assert(source.resources.size !== target.resources.size, "both are split alike");
      fill(source, 1);
      fill(target, 100);
      await changeExtents(source, specOf(from), () => ({ start: Math.floor(length / 2), length }));
      await checkCopy([source, specOf(from)], [target, specOf(to)]);
      assertEquals(await target.tokens(), new Array(2).fill([{ used: length, live: length }]));
      source.release();
      target.release();
    }
  }
});

Deno.test("copyFrom() takes over freed slots in the order in which they are used again", async () => {
  const specOf = (tokens: number, reserve: number): KvCacheSpec => ({
    requests: prunedRequests(3),
    capacities: [tokens + 6],
    turns: [turn(tokens, 6)],
    reserve,
    dtype: "f32",
    // 36 slots of the second layer stand two heads to an arena, 24 slots all in one.
    bindingBytes: 2 * 36 * 32,
  });
  for (const [from, to] of [[specOf(18, 0), specOf(30, 4)], [specOf(30, 0), specOf(18, 7)]]) {
    const [source, target] = [await createKvCache(gpu, from), await createKvCache(gpu, to)];
    assert(source.resources.size !== target.resources.size, "both are split alike");
    fill(source, 1);
    fill(target, 100);
    await changeExtents(source, from, ({ capacity }, layer, _, head) => {
      if (layer === 1) return { start: 13, length: 14 };
      const own = layer === 2 ? head : 0;
      // The ring wraps around in the first layer and two heads of the last one, in one of them from its last entry on.
      const freeFirst = [capacity - 2, capacity - 1, 1][own];
      return { start: 3, length: 8 - own, freeFirst, freeCount: 5 - own, frozen: 40 + layer };
    });
    await checkCopy([source, from], [target, to]);
    assertEquals((await target.tokens()).map(([first]) => first), [
      { used: 8, live: 3 },
      { used: 14, live: 14 },
      { used: 8, live: 3 },
    ]);
    source.release();
    target.release();
  }
});

Deno.test("copyFrom() finds slots that were dealt out among the heads of a layer", async () => {
  const spec: KvCacheSpec = {
    requests: prunedRequests(3),
    capacities: [30],
    turns: [turn(24, 6)],
    dtype: "f16",
    bindingBytes: 2 ** 20,
  };
  const [source, target] = [
    await createKvCache(gpu, spec),
    await createKvCache(gpu, { ...spec, reserve: 4 }),
  ];
  fill(source, 1);
  fill(target, 100);
  await changeExtents(source, spec, ({ base, positions }, layer, _, head) => {
    if (layer !== 2) return { length: 9 };
    // Slots of three heads with 10 each.
    const [capacity, moved] = [[14, 0], [3, 4], [13, -3]][head];
    const length = Math.min(capacity, 12);
    return { base: base + moved, positions: positions + moved, capacity, length, freeFirst: 2, freeCount: 2 };
  });
  await checkCopy([source, spec], [target, { ...spec, reserve: 4 }]);
  source.release();
  target.release();
});

Deno.test("copyFrom() refuses more slots than there is room for, and changes nothing then", async () => {
  const specOf = (maxTokens: number): KvCacheSpec => ({
    ...SPECS["layers that keep less"],
    capacities: [30],
    turns: [turn(6, maxTokens)],
  });
  const [source, target] = [await createKvCache(gpu, specOf(24)), await createKvCache(gpu, specOf(6))];
  fill(target, 1);
  const before = await contentOf(target);
  // All fits but the slots of the last head of the last layer.
  await changeExtents(source, specOf(24), (_, layer, __, head) => ({ length: layer + head === 4 ? 5 : 4 }));
  await assertRejects(
    () => target.copyFrom(source),
    RangeError,
    "Cannot copy 5 slots of a KV cache: there is room for 4",
  );
  assertEquals(await contentOf(target), before);
  source.release();
  target.release();
});

Deno.test("reset() forgets all sequences, and what is mutable brings them back", async () => {
  for (const name of ["several sequences", "layers that keep less"]) {
    const spec = SPECS[name];
    const cache = await createKvCache(gpu, spec);
    const empty = await extentsOf(cache, spec);
    fill(cache, 1);
    const seven = {
      base: 7,
      capacity: 7,
      start: 7,
      length: 7,
      positions: 7,
      freeFirst: 7,
      freeCount: 7,
      frozen: 7,
    };
    await changeExtents(cache, spec, () => seven);
    const saved = await Promise.all(
      cache.mutable.map(({ buffer, offset, size }) => readBuffer(gpu, buffer, offset, size)),
    );
    const before = await contentOf(cache);
    cache.reset();
    assertEquals(await extentsOf(cache, spec), empty);
    // Slots that are never evicted keep what they have.
    const changing = spec.turns ? Object.keys(SLOT_TABLES) : [];
    for (const table of changing) {
      const buffer = cache.resources.get(table)!;
      gpu.device.queue.writeBuffer(buffer, 0, new Uint8Array(buffer.size));
    }
    cache.mutable.forEach(({ buffer, offset }, i) => gpu.device.queue.writeBuffer(buffer, offset, saved[i]));
    assertEquals(
      await extentsOf(cache, spec),
      empty.map((layer) => layer.map((heads) => heads.map(() => seven))),
    );
    const after = await contentOf(cache);
    for (const { buffer, size } of cache.mutable) {
      const [table] = [...cache.resources].find(([, one]) => one === buffer)!;
      assertEquals(after.get(table)!.subarray(0, size / 4), before.get(table)!.subarray(0, size / 4), table);
    }
    assertEquals(cache.mutable.length, 1 + changing.length);
    cache.release();
  }
});
