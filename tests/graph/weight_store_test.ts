import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Gpu, GpuMemoryError, openGpu, readBuffer } from "../../lib/gpu/mod.ts";
import { createWeightStore, storageBytes, type Weight, type WeightStore } from "../../lib/graph/mod.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { limitGpu } from "../harness/replace_members.ts";

const gpu = await sharedGpu();

/** Random bytes of a weight. */
function content({ rows, columns, dtype }: Weight, seed: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(randomArray(rows * columns * storageBytes(dtype), seed), (x) => (x + 1) * 128);
}

/** What the store's buffers hold, part after part. */
async function stored(gpu: Gpu, store: WeightStore, weight: Weight): Promise<Uint8Array> {
  const rowBytes = weight.columns * storageBytes(weight.dtype);
  const pieces = await Promise.all(
    store.parts(weight).map(async ({ rows }, i) => {
      const bytes = rows * rowBytes;
      const data = await readBuffer(gpu, store.buffer(weight, i), 0, Math.ceil(bytes / 4) * 4);
      return [...new Uint8Array(data, 0, bytes)];
    }),
  );
  return Uint8Array.from(pieces.flat());
}

/** Writes bytes in chunks that end at these elements. */
function writeChunks(
  store: WeightStore,
  weight: Weight,
  bytes: Uint8Array<ArrayBuffer>,
  ends: readonly number[],
): void {
  const size = storageBytes(weight.dtype);
  let first = 0;
  for (const end of [...ends, weight.rows * weight.columns]) {
    store.write(weight, first, bytes.subarray(first * size, end * size));
    first = end;
  }
}

const WEIGHTS: readonly Weight[] = [
  { name: "odd", rows: 5, columns: 7, dtype: "f16" },
  { name: "one", rows: 1, columns: 1, dtype: "f16" },
  { name: "odd rows", rows: 9, columns: 3, dtype: "f16" },
  { name: "even", rows: 6, columns: 4, dtype: "f16" },
  { name: "wide type", rows: 5, columns: 7, dtype: "f32" },
];

Deno.test("write() takes chunks that end anywhere, also within a word and over the borders of parts", async () => {
  for (const weight of WEIGHTS) {
    const elements = weight.rows * weight.columns;
    const bytes = content(weight, 3);
    const rowBytes = weight.columns * storageBytes(weight.dtype);
    for (const rowsInPart of [weight.rows, 2, 1]) {
      const small = limitGpu(gpu, { maxStorageBufferBindingSize: rowsInPart * rowBytes });
      const store = createWeightStore(small);
      for (
        const [name, ends] of Object.entries({
          "at once": [],
          "one element at a time": Array.from({ length: elements - 1 }, (_, i) => i + 1),
          "odd and even by turns": [1, 2, 5, 6, 9, 13, 14].filter((end) => end < elements),
          "an empty one": [0, 0, Math.floor(elements / 2), Math.floor(elements / 2)],
        })
      ) {
        const named = { ...weight, name };
        await store.allocate(named);
        assertEquals(store.parts(named).length, Math.ceil(weight.rows / rowsInPart));
        writeChunks(store, named, bytes, ends);
        assertEquals(
          await stored(gpu, store, named),
          bytes,
          `${weight.name}, ${rowsInPart} rows a part, ${name}`,
        );
      }
      store.release();
    }
  }
});

Deno.test("write() refuses what is outside of the weight or begins within a word out of order", async () => {
  const store = createWeightStore(gpu);
  const weight: Weight = { name: "w", rows: 3, columns: 3, dtype: "f16" };
  await store.allocate(weight);
  const elements = (count: number) => new Uint8Array(count * 2);
  assertThrows(
    () => store.write(weight, 8, elements(2)),
    RangeError,
    "Cannot write elements 8 to 10 of weight w: it has 9",
  );
  assertThrows(() => store.write(weight, 3, elements(2)), RangeError, "weights are written in order");
  assertThrows(() => store.write(weight, 0, new Uint8Array(3)), RangeError, "Cannot write elements 0 to 1.5");
  assertThrows(
    () => store.write({ ...weight, name: "v" }, 0, elements(1)),
    Error,
    "Weight v is not on the GPU",
  );
  store.release();
});

Deno.test("release() frees the buffers with the last user, and says so to who comes later", async () => {
  const before = gpu.memory.holders().weights ?? 0;
  const held = () => (gpu.memory.holders().weights ?? 0) - before;
  const store = createWeightStore(gpu);
  const weight: Weight = { name: "w", rows: 4, columns: 5, dtype: "f32" };
  await store.allocate(weight);
  assertEquals([store.bytes, held()], [80, 80]);
  await assertRejects(() => store.allocate(weight), Error, "Weight w is on the GPU already");
  store.retain();
  store.release();
  assertEquals([held(), store.freed], [80, false]);
  assertEquals(store.buffer(weight, 0).size, 80);
  store.release();
  assertEquals([store.bytes, held(), store.freed], [0, 0, true]);
  store.release();
  const message = "The model was disposed of, its weights are no longer on the GPU: load it again";
  assertThrows(() => store.buffer(weight, 0), Error, message);
  assertThrows(() => store.retain(), Error, message);
  await assertRejects(() => store.allocate({ ...weight, name: "v" }), Error, message);
  assertEquals(held(), 0);
});

Deno.test("release() frees what a failed allocation had got", async () => {
  using small = await openGpu({ memory: 100 });
  const store = createWeightStore(limitGpu(small, { maxStorageBufferBindingSize: 40 }));
  const weight: Weight = { name: "w", rows: 30, columns: 1, dtype: "f32" };
  await assertRejects(
    () => store.allocate(weight),
    GpuMemoryError,
    "for weight w: the memory ceiling is 100 B",
  );
  store.release();
  assertEquals(small.memory.bytes, 0);
});
