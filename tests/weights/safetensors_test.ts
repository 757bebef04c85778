import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { DTYPES } from "../../lib/weights/dtype.ts";
import { openFileReader } from "../../lib/weights/file_reader.ts";
import { MAX_HEADER_BYTES, readSafetensorsHeader } from "../../lib/weights/safetensors.ts";
import { type Entry, fileBytes, floats, folder, safetensors } from "./crafted.ts";

const FILE = "model.safetensors";

async function read(content: string | Uint8Array<ArrayBuffer>) {
  await using made = await folder({ [FILE]: content });
  using file = await openFileReader(made.file(FILE));
  return await readSafetensorsHeader(file);
}

/** A message names the file and, where it is given, the tensor; and it ends with what to do. */
async function refuses(
  content: string | Uint8Array<ArrayBuffer>,
  says: string[],
  tensor?: string,
): Promise<void> {
  const { message } = await assertRejects(() => read(content), SyntaxError);
  for (const part of [FILE, ...says]) assertStringIncludes(message, part);
  if (tensor !== undefined) assertStringIncludes(message, `Tensor "${tensor}"`);
  if (!/(download|convert|fetch|use) [^.]+[^.]$/.test(message)) throw new Error(`No remedy: ${message}`);
}

/** A file with this header entry for `x`, and so many bytes after the header. */
function withEntry(entry: Partial<Entry> | null | string, dataBytes = 16): Uint8Array<ArrayBuffer> {
  const right: Entry = { dtype: "F32", shape: [4], data_offsets: [0, 16] };
  const x = typeof entry === "object" && entry !== null ? { ...right, ...entry } : entry;
  return fileBytes(JSON.stringify({ x }), new Uint8Array(dataBytes));
}

function withRanges(ranges: Record<string, [number, number]>, dataBytes: number): Uint8Array<ArrayBuffer> {
  const header = Object.entries(ranges).map(([name, [begin, end]]) => [
    name,
    { dtype: "U8", shape: [end - begin], data_offsets: [begin, end] },
  ]);
  return fileBytes(JSON.stringify(Object.fromEntries(header)), new Uint8Array(dataBytes));
}

Deno.test("readSafetensorsHeader() gives tensors in the order of their bytes, and metadata", async () => {
  const header = JSON.stringify({
    "__metadata__": { format: "pt", "__proto__x": "" },
    "1": { dtype: "F16", shape: [2, 3], data_offsets: [4, 16] },
    scalar: { dtype: "F32", shape: [], data_offsets: [0, 4] },
    packed: { dtype: "F4", shape: [3, 2], data_offsets: [16, 19] },
    empty: { dtype: "I64", shape: [0, 7], data_offsets: [16, 16] },
  });
  const { tensors, metadata } = await read(fileBytes(header + "   ", new Uint8Array(19)));
  const start = 8 + header.length + 3;
  assertEquals(
    tensors.map(({ file: _, ...rest }) => rest),
    [
      { name: "scalar", dtype: "F32", shape: [], elements: 1, offset: start, bytes: 4 },
      { name: "1", dtype: "F16", shape: [2, 3], elements: 6, offset: start + 4, bytes: 12 },
      { name: "empty", dtype: "I64", shape: [0, 7], elements: 0, offset: start + 16, bytes: 0 },
      { name: "packed", dtype: "F4", shape: [3, 2], elements: 6, offset: start + 16, bytes: 3 },
    ],
  );
  assertStringIncludes(tensors[0].file, FILE);
  assertEquals(metadata, { format: "pt", "__proto__x": "" });
});

Deno.test("readSafetensorsHeader() takes a file without tensors and without metadata", async () => {
  assertEquals(await read(fileBytes("{}")), { tensors: [], metadata: {} });
});

Deno.test("readSafetensorsHeader() takes names that objects have of themselves", async () => {
  const data = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';
  const more = '{"dtype":"U8","shape":[1],"data_offsets":[1,2]}';
  const { tensors } = await read(fileBytes(`{"__proto__":${data},"toString":${more}}`, new Uint8Array(2)));
  assertEquals(tensors.map(({ name }) => name), ["__proto__", "toString"]);
});

Deno.test("readSafetensorsHeader() knows the bytes of every dtype of the format", async () => {
  for (const dtype of DTYPES) {
    const bits = /^(BOOL|C64)$/.test(dtype) ? (dtype === "BOOL" ? 8 : 64) : Number(/\d+/.exec(dtype)![0]);
    const entry = { dtype, shape: [2, 4], data_offsets: [0, bits] };
    const { tensors } = await read(withEntry(entry, bits));
    assertEquals(tensors[0].bytes, bits);
  }
});

Deno.test("readSafetensorsHeader() refuses a file shorter than 8 bytes", async () => {
  await refuses("", ["0 bytes", "too few"]);
  await refuses("1234567", ["7 bytes", "too few"]);
});

Deno.test("readSafetensorsHeader() refuses a header length over the file or over the limit", async () => {
  const header = JSON.stringify({});
  await refuses(fileBytes(header, undefined, 3n), ["3 bytes", "only 10 bytes in all"]);
  await refuses(fileBytes(header, undefined, 100_000_000n), ["100000000 bytes", "only 10"]);
  await refuses(fileBytes(header, undefined, 100_000_001n), [
    "100000001 bytes",
    `limit of ${MAX_HEADER_BYTES}`,
  ]);
  await refuses(fileBytes(header, undefined, 2n ** 64n - 1n), [
    "18446744073709551615 bytes",
    "over the limit",
  ]);
});

Deno.test("readSafetensorsHeader() says what a file is that is none of the format", async () => {
  await refuses("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", [
    "Git LFS pointer",
    "git lfs pull",
  ]);
  await refuses("PK\x03\x04\x00\x00\x08\x08\x00\x00 archive/data.pkl", ["PyTorch"]);
  await refuses("GGUF\x03\x00\x00\x00\x10\x00\x00\x00", ["GGUF"]);
  await refuses("<!DOCTYPE html><html></html>", ["web page"]);
  await refuses("<html><body>Forbidden</body></html>", ["web page"]);
});

Deno.test("readSafetensorsHeader() refuses a header that is not a JSON object in UTF-8", async () => {
  await refuses(fileBytes('{"x": '), ["not valid JSON"]);
  await refuses(fileBytes(""), ['where the format wants "{"']);
  await refuses(fileBytes("[]"), ['begins with "["']);
  await refuses(fileBytes(" {}"), ['begins with " "']);
  await refuses(fileBytes("\ufeff{}"), ['where the format wants "{"']);
  await refuses(fileBytes("{}\0"), ["not valid JSON"]);
  await refuses(fileBytes(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d)), ["not valid UTF-8"]);
});

Deno.test("readSafetensorsHeader() refuses names that stand twice", async () => {
  const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
  await refuses(fileBytes(`{"x":${entry},"y":${entry},"x":${entry}}`), ['"x" twice']);
  await refuses(fileBytes(`{"x":${entry},"\\u0078" \n:${entry}}`), ['"x" twice']);
  await refuses(fileBytes('{"x":{"dtype":"U8","shape":[0],"dtype":"I8","data_offsets":[0,0]}}'), [
    '"dtype" twice',
  ]);
  await refuses(fileBytes('{"__metadata__":{"a":"1","a":"2"}}'), ['"a" twice']);
});

Deno.test("readSafetensorsHeader() takes a value that equals a name, and quotes and braces in names", async () => {
  const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
  const header =
    `{"__metadata__":{"dtype":"dtype","{\\"a\\":":"{\\\\"},"a\\"":${entry},"a\\\\":${entry},"a":${entry}}`;
  const { tensors, metadata } = await read(fileBytes(header));
  assertEquals(tensors.map(({ name }) => name), ['a"', "a\\", "a"]);
  assertEquals(metadata, { dtype: "dtype", '{"a":': "{\\" });
});

Deno.test("readSafetensorsHeader() refuses metadata that is not text", async () => {
  await refuses(fileBytes('{"__metadata__":[]}'), ["__metadata__", "not an object but []"]);
  await refuses(fileBytes('{"__metadata__":{"steps":7}}'), ["__metadata__", 'value 7 for "steps"']);
});

Deno.test("readSafetensorsHeader() refuses an entry that is not an object or lacks a field", async () => {
  await refuses(withEntry(null), ["described by null"], "x");
  await refuses(withEntry("F32"), ['described by "F32"'], "x");
  await refuses(withEntry({ dtype: undefined }), ["unknown dtype undefined"], "x");
  await refuses(withEntry({ shape: undefined }), ["shape undefined"], "x");
  await refuses(withEntry({ data_offsets: undefined }), ["data_offsets undefined"], "x");
});

Deno.test("readSafetensorsHeader() refuses an unknown dtype and lists those it knows", async () => {
  await refuses(withEntry({ dtype: "Q4_0" }), ['unknown dtype "Q4_0"', "F16, BF16, F32, F64"], "x");
  await refuses(withEntry({ dtype: "toString" }), ['unknown dtype "toString"'], "x");
  await refuses(withEntry({ dtype: 32 }), ["unknown dtype 32"], "x");
});

Deno.test("readSafetensorsHeader() refuses a shape that is none", async () => {
  for (const shape of [[-4], [1.5], ["4"], [null], 4, { 0: 4 }, [2 ** 53]]) {
    await refuses(
      withEntry({ shape }),
      [`shape ${JSON.stringify(shape)}`, "not a list of whole numbers"],
      "x",
    );
  }
});

Deno.test("readSafetensorsHeader() refuses a shape whose product cannot be counted", async () => {
  await refuses(withEntry({ shape: [2 ** 32, 2 ** 32] }), ["more elements than can be counted"], "x");
  await refuses(withEntry({ shape: [2 ** 52] }), ["more elements than can be counted"], "x");
  // 2^64 + 4 elements of one byte: in 64 bits the product would wrap around to 4.
  await refuses(withEntry({ dtype: "U8", shape: [4, 2147549185, 2147418113], data_offsets: [0, 4] }, 4), [
    "more elements than can be counted",
  ], "x");
});

Deno.test("readSafetensorsHeader() refuses offsets that are none or out of order", async () => {
  for (const data_offsets of [[-1, 15], [0], [0, 16, 32], [0, 15.5], ["0", "16"], [0, 2 ** 53], "0-16"]) {
    await refuses(withEntry({ data_offsets }), [`data_offsets ${JSON.stringify(data_offsets)}`], "x");
  }
  await refuses(withEntry({ data_offsets: [16, 0] }), ["begins at byte 16", "ends before it, at 0"], "x");
});

Deno.test("readSafetensorsHeader() refuses bytes that do not follow from dtype and shape", async () => {
  await refuses(withEntry({ shape: [5] }), ["takes 16 bytes", "F32 of shape [5] takes 20"], "x");
  await refuses(withEntry({ dtype: "F16" }), ["takes 16 bytes", "F16 of shape [4] takes 8"], "x");
  await refuses(withEntry({ dtype: "F4", shape: [31] }), ["takes 15.5"], "x");
});

Deno.test("readSafetensorsHeader() refuses a file that is cut short", async () => {
  const whole = safetensors({ x: floats(1, 2, 3, 4) });
  await refuses(
    whole.slice(0, -1),
    [`ends at byte ${whole.length}`, `the file has ${whole.length - 1}`],
    "x",
  );
  await refuses(whole.slice(0, 20), ["cut short"]);
  await refuses(withEntry({ data_offsets: [1e12, 1e12 + 16] }), ["ends at byte 1000000000"], "x");
});

Deno.test("readSafetensorsHeader() refuses tensors that overlap", async () => {
  await refuses(withRanges({ a: [0, 4], b: [2, 6] }, 6), ["begins at byte", 'inside of tensor "a"'], "b");
  await refuses(withRanges({ b: [0, 4], a: [0, 4] }, 4), ["inside of tensor"], "a");
  await refuses(withRanges({ a: [0, 4], empty: [2, 2] }, 4), ['inside of tensor "a"'], "empty");
});

Deno.test("readSafetensorsHeader() refuses holes before, between and after tensors", async () => {
  await refuses(withRanges({ a: [2, 4] }, 4), ["begins at byte", "no holes"], "a");
  await refuses(withRanges({ a: [0, 2], b: [3, 4] }, 4), ["begins at byte", "no holes"], "b");
  await refuses(withRanges({ a: [0, 2], b: [2, 4] }, 7), ["3 bytes after its last tensor", "no holes"]);
  await refuses(fileBytes("{}", new Uint8Array(1)), ["1 bytes after its last tensor"]);
});

Deno.test("readSafetensorsHeader() cuts what it quotes", async () => {
  const error = await assertRejects(() => read(withEntry({ dtype: "F".repeat(10_000) })), SyntaxError);
  assertEquals(error.message.length < 1000, true);
});
