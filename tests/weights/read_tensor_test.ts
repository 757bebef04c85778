import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { type Checkpoint, openCheckpoint, type ReadOptions, type TargetType } from "../../lib/weights/mod.ts";
import { type Crafted, floats, folder, safetensors } from "./crafted.ts";
import { halfValue, nearestHalf } from "./half_values.ts";

const FILE = "model.safetensors";

async function opened(tensors: Record<string, Crafted>) {
  const made = await folder({ [FILE]: safetensors(tensors) });
  const checkpoint = await openCheckpoint(made.path);
  return {
    checkpoint,
    file: made.file(FILE),
    async [Symbol.asyncDispose]() {
      checkpoint[Symbol.dispose]();
      await made[Symbol.asyncDispose]();
    },
  };
}

/** Reads and puts the chunks together as values; checks what holds for all chunks. */
async function read(checkpoint: Checkpoint, name: string, target: TargetType, options: ReadOptions = {}) {
  const { first, count } = options.range ?? { first: 0, count: checkpoint.tensors.get(name)!.elements };
  const values: number[] = [];
  const counts: number[] = [];
  const report = await checkpoint.read(name, target, (bytes, offset) => {
    assertEquals(offset, first + values.length);
    assert(bytes.length <= (options.chunkBytes ?? Infinity));
    const copy = bytes.slice().buffer;
    counts.push(bytes.length / (target === "f32" ? 4 : 2));
    if (target === "f32") values.push(...new Float32Array(copy));
    else values.push(...Array.from(new Uint16Array(copy), halfValue));
  }, options);
  assertEquals(values.length, count);
  return { values, counts, report };
}

/** Numbers with a few bits, the same in all types. */
const EXACT = Array.from({ length: 101 }, (_, i) => (i - 50) / 8);

const STORED: Record<string, Crafted> = {
  odd: { dtype: "U8", shape: [3], data: new Uint8Array(3) }, // moves the others to odd offsets
  F32: { dtype: "F32", shape: [101], data: Float32Array.from(EXACT) },
  F16: { dtype: "F16", shape: [101], data: Uint16Array.from(EXACT, nearestHalf) },
  BF16: {
    dtype: "BF16",
    shape: [101],
    data: new Uint16Array(Float32Array.from(EXACT).buffer).filter((_, i) => i % 2 === 1),
  },
};

Deno.test("read() gives the same numbers for all types and sizes of chunks", async () => {
  await using made = await opened(STORED);
  for (const name of ["F32", "F16", "BF16"]) {
    for (const target of ["f32", "f16"] as const) {
      for (const chunkBytes of [8, 12, 15, 16, 64, 200, 202, 203, 204, 400, 404, 405, 408, 1e6, undefined]) {
        const { values, report } = await read(made.checkpoint, name, target, { chunkBytes });
        assertEquals(values, EXACT, `${name} to ${target} in chunks of ${chunkBytes} bytes`);
        assertEquals(report, { nonFinite: 0, outOfRange: 0, underflow: 0 });
      }
    }
  }
});

Deno.test("read() makes chunks of an even number of elements, but the last", async () => {
  await using made = await opened(STORED);
  const counts = async (name: string, target: TargetType, chunkBytes: number) =>
    (await read(made.checkpoint, name, target, { chunkBytes })).counts;
  assertEquals(await counts("F16", "f16", 87), [42, 42, 17]);
  assertEquals(await counts("F32", "f16", 204), [50, 50, 1]);
  assertEquals(await counts("F16", "f32", 160), [40, 40, 21]);
  assertEquals(await counts("F32", "f32", 404), [100, 1]);
  assertEquals(await counts("F32", "f32", 408), [101]);
});

Deno.test("read() reads ranges, with offsets in the tensor", async () => {
  await using made = await opened(STORED);
  for (const name of ["F32", "F16", "BF16"]) {
    for (const [first, count] of [[0, 101], [0, 1], [100, 1], [7, 30], [33, 68], [50, 0], [101, 0]]) {
      for (const chunkBytes of [16, 1000]) {
        const { values } = await read(made.checkpoint, name, "f16", { range: { first, count }, chunkBytes });
        assertEquals(values, EXACT.slice(first, first + count));
      }
    }
  }
});

Deno.test("read() refuses a range that is not inside of the tensor", async () => {
  await using made = await opened({ x: floats(1, 2, 3) });
  const none = () => {};
  for (const [first, count] of [[0, 4], [3, 1], [4, 0], [-1, 2], [0, -1], [0.5, 1], [0, 1.5], [NaN, 1]]) {
    const wrong = () => made.checkpoint.read("x", "f32", none, { range: { first, count } });
    await assertRejects(wrong, RangeError, `3 elements, ${count} from ${first}`);
  }
});

Deno.test("read() refuses chunks that hold no two elements", async () => {
  await using made = await opened(STORED);
  const none = () => {};
  for (const chunkBytes of [0, -1, 7, NaN, Infinity]) {
    await assertRejects(
      () => made.checkpoint.read("F32", "f16", none, { chunkBytes }),
      RangeError,
      "chunkBytes",
    );
  }
  await assertRejects(
    () => made.checkpoint.read("F16", "f16", none, { chunkBytes: 3 }),
    RangeError,
    "at least 4",
  );
});

Deno.test("read() calls nothing for a tensor without elements, and once for a scalar", async () => {
  await using made = await opened({
    empty: { dtype: "BF16", shape: [0, 8], data: new Uint16Array() },
    scalar: { dtype: "F32", shape: [], data: Float32Array.of(2.5) },
  });
  assertEquals((await read(made.checkpoint, "empty", "f16")).counts, []);
  assertEquals((await read(made.checkpoint, "scalar", "f16")).values, [2.5]);
});

Deno.test("read() reports what is not finite, out of range or lost, over all chunks", async () => {
  const stored = new Array(20).fill(1);
  stored[3] = 1e-9;
  stored[9] = 7e4;
  stored[12] = NaN;
  stored[13] = -Infinity;
  stored[19] = -65520;
  await using made = await opened({ x: floats(...stored) });
  const { values, report } = await read(made.checkpoint, "x", "f16", { chunkBytes: 16 });
  assertEquals(report, { nonFinite: 2, firstNonFinite: 12, outOfRange: 2, firstOutOfRange: 9, underflow: 1 });
  assertEquals([3, 9, 12, 13, 19].map((i) => values[i]), [0, Infinity, NaN, -Infinity, -Infinity]);
  const wide = await read(made.checkpoint, "x", "f32", { chunkBytes: 16 });
  assertEquals(wide.report, { nonFinite: 2, firstNonFinite: 12, outOfRange: 0, underflow: 0 });
  const part = await read(made.checkpoint, "x", "f16", { range: { first: 10, count: 9 } });
  assertEquals(part.report, { nonFinite: 2, firstNonFinite: 12, outOfRange: 0, underflow: 0 });
});

Deno.test("read() waits for onChunk before it overwrites the chunk", async () => {
  await using made = await opened(STORED);
  const values: number[] = [];
  await made.checkpoint.read("F32", "f32", async (bytes) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    values.push(...new Float32Array(bytes.slice().buffer));
  }, { chunkBytes: 64 });
  assertEquals(values, EXACT);
});

Deno.test("read() serves several readers of one file at once", async () => {
  await using made = await opened(STORED);
  const all = await Promise.all(
    ["F32", "F16", "BF16", "F32"].map((name) => read(made.checkpoint, name, "f16", { chunkBytes: 16 })),
  );
  for (const { values } of all) assertEquals(values, EXACT);
});

Deno.test("read() passes on what onChunk throws", async () => {
  await using made = await opened(STORED);
  const error = new Error("device lost");
  const thrown = await assertRejects(() => made.checkpoint.read("F32", "f32", () => Promise.reject(error)));
  assertStrictEquals(thrown, error);
});

Deno.test("read() ends with the signal's reason, before the first chunk or after one", async () => {
  const empty: Crafted = { dtype: "F32", shape: [0], data: new Float32Array() };
  await using made = await opened({ ...STORED, empty });
  const reason = new Error("enough");
  const calls: number[] = [];
  const early = AbortSignal.abort(reason);
  for (const name of ["F32", "empty"]) {
    const before = await assertRejects(() =>
      made.checkpoint.read(name, "f32", (_, offset) => void calls.push(offset), { signal: early })
    );
    assertStrictEquals(before, reason);
  }
  assertEquals(calls, []);
  const controller = new AbortController();
  const after = await assertRejects(() =>
    made.checkpoint.read("F32", "f32", (_, offset) => {
      calls.push(offset);
      if (offset === 8) controller.abort(reason);
    }, { signal: controller.signal, chunkBytes: 32 })
  );
  assertStrictEquals(after, reason);
  assertEquals(calls, [0, 8]);
});

Deno.test("read() notices a file that is cut short meanwhile", async () => {
  await using made = await opened({ x: floats(...EXACT) });
  const size = (await Deno.stat(made.file)).size;
  const reading = made.checkpoint.read("x", "f32", (_, offset) => {
    if (offset === 0) Deno.truncateSync(made.file, size - 100);
  }, { chunkBytes: 40 });
  await assertRejects(() => reading, Error, `ended at byte ${size - 100}`);
});

Deno.test("read() notices a file that is written to meanwhile", async () => {
  await using made = await opened({ x: floats(...EXACT) });
  await Deno.utime(made.file, 1, 1);
  using again = await openCheckpoint(made.file.slice(0, -FILE.length));
  const reading = again.read("x", "f32", async (_, offset) => {
    if (offset === 0) await Deno.writeFile(made.file, safetensors({ x: floats(...EXACT.toReversed()) }));
  }, { chunkBytes: 40 });
  await assertRejects(() => reading, Error, "changed while it was open");
});

Deno.test("read() takes no more memory than a chunk", async () => {
  await using made = await opened({ x: { dtype: "F16", shape: [1000], data: new Uint16Array(1000) } });
  const buffers = new Set<ArrayBuffer>();
  let largest = 0;
  await made.checkpoint.read("x", "f32", (bytes) => {
    buffers.add(bytes.buffer);
    largest = Math.max(largest, bytes.buffer.byteLength);
  }, { chunkBytes: 80 });
  assertEquals([buffers.size, largest], [1, 80]);
  assertEquals([...buffers][0].byteLength, 0); // given back, not left to the garbage collector
});

Deno.test("read() reads beyond 4 GiB", async () => {
  const before = 2 ** 32 + 2 ** 20; // a tensor of zeros that takes no place on the disk
  const header = JSON.stringify({
    zeros: { dtype: "U8", shape: [before], data_offsets: [0, before] },
    x: { dtype: "F32", shape: [3], data_offsets: [before, before + 12] },
  });
  await using made = await folder({});
  const path = `${made.path}/${FILE}`;
  {
    using file = await Deno.open(path, { write: true, create: true });
    const start = new Uint8Array(8);
    new DataView(start.buffer).setBigUint64(0, BigInt(header.length), true);
    await file.write(start);
    await file.write(new TextEncoder().encode(header));
    await file.seek(before, Deno.SeekMode.Current);
    await file.write(new Uint8Array(Float32Array.of(1.5, -2, 3).buffer));
  }
  using checkpoint = await openCheckpoint(made.path);
  assertEquals(checkpoint.tensors.get("x")!.offset, 8 + header.length + before);
  assertEquals((await read(checkpoint, "x", "f32")).values, [1.5, -2, 3]);
});
