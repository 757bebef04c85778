import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { cacheBytes, createCache } from "../../lib/cache/mod.ts";
import { GpuMemoryError, openGpu, readBuffer } from "../../lib/gpu/mod.ts";
import { type CacheRequest, createTrace, type Target } from "../../lib/graph/mod.ts";
import { recurrentState } from "../../lib/ops/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";

const gpu = await sharedGpu();
const REQUESTS: readonly CacheRequest[] = [
  { kind: "kv", layer: 0, owner: 0, sizes: { kvHeads: 2, headSize: 8 } },
  { kind: "state", layer: 0, owner: 1, sizes: { words: 12 } },
  { kind: "state", layer: 1, owner: 1, sizes: { words: 4 } },
  { kind: "state", layer: 2, owner: 3, sizes: { words: 8 } },
];
const specOf = (lengths: readonly number[]) => ({
  requests: REQUESTS,
  capacities: lengths,
  dtype: "f32" as const,
  bindingBytes: 2 ** 20,
});

Deno.test("createCache() of keys and states tells bytes by attention layer, and allocates as many", async () => {
  using own = await openGpu();
  const spec = specOf([10, 20]);
  const { layers, bytes, tableBytes } = cacheBytes(spec);
  assertEquals(
    layers.map(({ index, kind, cacheBytes, stateBytes }) => [index, kind, cacheBytes, stateBytes]),
    [[0, "kv", 2 * 30 * 2 * 8 * 4, 0], [1, "state", 0, 2 * (12 + 4) * 4], [3, "state", 0, 2 * 8 * 4]],
  );
  const before = own.memory.bytes;
  const cache = await createCache(own, spec);
  assertEquals(own.memory.bytes - before, bytes + tableBytes);
  assertEquals([cache.bytes, cache.layers], [bytes, layers]);
  cache.release();
  assertEquals(own.memory.bytes, before);
});

Deno.test("states do not grow with the length", () => {
  const states = (length: number) => cacheBytes(specOf([length])).layers.map(({ stateBytes }) => stateBytes);
  assertEquals(states(10), states(100_000 / 10));
});

Deno.test("a cache with states copies them, changes all of them in place, and forgets them", async () => {
  const [from, to] = [await createCache(gpu, specOf([10])), await createCache(gpu, specOf([30]))];
  try {
    for (const [i, name] of ["state.0", "state.1", "state.2"].entries()) {
      const buffer = from.resources.get(name)!;
      gpu.device.queue.writeBuffer(buffer, 0, new Float32Array(buffer.size / 4).fill(i + 0.5));
    }
    await to.copyFrom(from);
    const content = async (name: string) => [
      ...new Float32Array(await readBuffer(gpu, to.resources.get(name)!, 0, 16)),
    ];
    assertEquals(await content("state.0"), [0.5, 0.5, 0.5, 0.5]);
    assertEquals(await content("state.2"), [2.5, 2.5, 2.5, 2.5]);
    const mutable = new Set(to.mutable.map(({ buffer }) => buffer));
    for (const name of ["state.0", "state.1", "state.2"]) {
      assertEquals(mutable.has(to.resources.get(name)!), true);
    }
    to.reset();
    assertEquals(await content("state.2"), [0, 0, 0, 0]);
  } finally {
    from.release();
    to.release();
  }
});

Deno.test("createCache() refuses states over the binding limit, with how many sequences fit, and leaves nothing", async () => {
  const before = gpu.memory.bytes;
  await assertRejects(
    () => createCache(gpu, { ...specOf(new Array(100).fill(1)), bindingBytes: 4800 - 4 }),
    RangeError,
    "at most 99 at once",
  );
  assertEquals(gpu.memory.bytes, before);
  using tight = await openGpu({ memory: 1000 });
  await assertRejects(() => createCache(tight, specOf([100])), GpuMemoryError);
  assertEquals(tight.memory.bytes, 0);
});

Deno.test("recurrentState() numbers states by layer and refuses sizes that are no multiple of 4", () => {
  const trace = createTrace({} as Target);
  trace.attentionLayers = 3;
  assertEquals(recurrentState(trace, 8), { name: "state.0", layer: 0, words: 8 });
  assertEquals(recurrentState(trace, 4).name, "state.1");
  assertEquals(trace.caches.map(({ owner }) => owner), [2, 2]);
  for (const words of [0, 6, 2.5, -4]) {
    assertThrows(() => recurrentState(trace, words), RangeError, `current value is ${words}`);
  }
});
