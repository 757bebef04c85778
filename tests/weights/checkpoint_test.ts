import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { openCheckpoint } from "../../lib/weights/mod.ts";
import { type Crafted, fileBytes, floats, folder, safetensors } from "./crafted.ts";

const NO_LEAKS = { sanitizeResources: true }; // every file that was opened must be closed

const INDEX = "model.safetensors.index.json";
const A = "model-00001-of-00002.safetensors";
const B = "model-00002-of-00002.safetensors";

function index(weight_map: unknown): string {
  return JSON.stringify({ metadata: { total_size: 8 }, weight_map });
}

/** The error of opening a folder with these files; it must not leave a file open, which the test runner checks. */
async function refusal(
  files: Record<string, string | Uint8Array<ArrayBuffer>>,
  ErrorClass: typeof Error | typeof SyntaxError = Error,
): Promise<string> {
  await using made = await folder(files);
  return (await assertRejects(() => openCheckpoint(made.path), ErrorClass)).message;
}

async function values(
  files: Record<string, string | Uint8Array<ArrayBuffer>>,
): Promise<Record<string, number[]>> {
  await using made = await folder(files);
  using checkpoint = await openCheckpoint(made.path);
  const result: Record<string, number[]> = {};
  for (const [name, { elements }] of checkpoint.tensors) {
    const all = new Float32Array(elements);
    await checkpoint.read(
      name,
      "f32",
      (bytes, offset) => all.set(new Float32Array(bytes.slice().buffer), offset),
    );
    result[name] = [...all];
  }
  return result;
}

Deno.test("openCheckpoint() opens a single file", NO_LEAKS, async () => {
  await using made = await folder({
    "model.safetensors": safetensors({ b: floats(1, 2), a: floats(3) }, { format: "pt" }),
    "config.json": "{}",
  });
  using checkpoint = await openCheckpoint(made.path);
  assertEquals(checkpoint.directory, made.path);
  assertEquals([...checkpoint.tensors.keys()], ["b", "a"]);
  assertEquals(checkpoint.tensors.get("a")!.file, made.file("model.safetensors"));
  assertEquals(checkpoint.metadata, { format: "pt" });
});

Deno.test("openCheckpoint() follows links, as the cache of the hub has them", NO_LEAKS, async () => {
  await using made = await folder({ blob: safetensors({ x: floats(5) }) });
  await Deno.symlink(made.file("blob"), made.file("model.safetensors"));
  using checkpoint = await openCheckpoint(made.path);
  assertEquals(checkpoint.tensors.get("x")!.shape, [1]);
});

Deno.test("openCheckpoint() opens shards and reads each tensor from its own", NO_LEAKS, async () => {
  const files = {
    [INDEX]: index({ y: B, x: A, z: A }),
    [A]: safetensors({ x: floats(1, 2), z: floats(3) }),
    [B]: safetensors({ y: floats(4, 5, 6) }),
  };
  assertEquals(await values(files), { x: [1, 2], z: [3], y: [4, 5, 6] });
});

Deno.test("openCheckpoint() prefers the single file to an index", NO_LEAKS, async () => {
  const files = { "model.safetensors": safetensors({ x: floats(1) }), [INDEX]: index({ x: A }) };
  assertEquals(await values(files), { x: [1] });
});

Deno.test(
  "openCheckpoint() takes the shard that the index says where a tensor is in two",
  NO_LEAKS,
  async () => {
    for (const [shard, value] of [[A, 1], [B, 2]] as const) {
      const files = {
        [INDEX]: index({ x: shard, a: A, b: B }),
        [A]: safetensors({ x: floats(1), a: floats(0) }),
        [B]: safetensors({ x: floats(2), b: floats(0) }),
      };
      assertEquals((await values(files)).x, [value]);
    }
  },
);

Deno.test(
  "openCheckpoint() takes a tensor that the index forgot, unless it is in two shards",
  NO_LEAKS,
  async () => {
    const files = {
      [INDEX]: index({ a: A, b: B }),
      [A]: safetensors({ a: floats(1) }),
      [B]: safetensors({ b: floats(2), more: floats(3) }),
    };
    assertEquals(await values(files), { a: [1], b: [2], more: [3] });
    const message = await refusal(
      { ...files, [A]: safetensors({ a: floats(1), more: floats(4) }) },
      SyntaxError,
    );
    for (const part of ['Tensor "more"', A, B, "download the checkpoint again"]) {
      assertStringIncludes(message, part);
    }
  },
);

Deno.test("openCheckpoint() merges metadata, the first shard's before the others'", NO_LEAKS, async () => {
  await using made = await folder({
    [INDEX]: index({ b: B, a: A }),
    [A]: safetensors({ a: floats(1) }, { format: "pt" }),
    [B]: safetensors({ b: floats(2) }, { format: "np", step: "7" }),
  });
  using checkpoint = await openCheckpoint(made.path);
  assertEquals(checkpoint.metadata, { format: "pt", step: "7" });
});

Deno.test("openCheckpoint() refuses a folder that is missing or a file", NO_LEAKS, async () => {
  await using made = await folder({ "model.safetensors": safetensors({}) });
  await assertRejects(() => openCheckpoint(made.file("none")), Error, "There is no folder");
  await assertRejects(() => openCheckpoint(made.file("model.safetensors")), Error, "is not a folder");
});

Deno.test("openCheckpoint() says what a folder holds instead of a checkpoint", NO_LEAKS, async () => {
  assertStringIncludes(await refusal({ "config.json": "{}" }), "download one of them");
  const pickle = await refusal({ "pytorch_model.bin": "PK" });
  const parts = [
    "pytorch_model.bin",
    "is not read",
    "convert it in Python",
    'glob("pytorch_model*.bin")',
    "save_file",
  ];
  for (const part of parts) {
    assertStringIncludes(pickle, part);
  }
  const shard = "pytorch_model-00001-of-00002.bin";
  assertStringIncludes(await refusal({ "optimizer.pt": "", [shard]: "PK" }), 'glob("pytorch_model*.bin")');
  assertStringIncludes(await refusal({ "consolidated.00.pth": "PK" }), 'glob("consolidated*.pth")');
  assertStringIncludes(await refusal({ "model-q4_0.gguf": "GGUF" }), "model-q4_0.gguf");
  assertStringIncludes(await refusal({ [B]: safetensors({}) }), "download the index too");
  assertStringIncludes(
    await refusal({ "weights.safetensors": safetensors({}) }),
    "rename it to model.safetensors",
  );
});

Deno.test("openCheckpoint() refuses a checkpoint whose shard is missing", NO_LEAKS, async () => {
  const message = await refusal({ [INDEX]: index({ a: A, b: B }), [A]: safetensors({ a: floats(1) }) });
  for (const part of [B, "is missing", "download it"]) assertStringIncludes(message, part);
});

Deno.test(
  "openCheckpoint() refuses a shard without the tensor that the index says is in it",
  NO_LEAKS,
  async () => {
    const files = { [INDEX]: index({ a: A, b: A }), [A]: safetensors({ a: floats(1) }) };
    const message = await refusal(files, SyntaxError);
    for (const part of ['Tensor "b" is not in', A, "download both again"]) {
      assertStringIncludes(
        message,
        part,
      );
    }
  },
);

Deno.test("openCheckpoint() refuses a shard that is damaged, and closes the others", NO_LEAKS, async () => {
  const files = { [INDEX]: index({ a: A, b: B }), [A]: safetensors({ a: floats(1) }), [B]: fileBytes("[]") };
  assertStringIncludes(await refusal(files, SyntaxError), B);
});

Deno.test("openCheckpoint() refuses shards that are not plain files beside the index", NO_LEAKS, async () => {
  const outside = [
    "../model.safetensors",
    "/etc/model.safetensors",
    "a\\..\\model.safetensors",
    "C:model.safetensors",
    "model.safetensors\0",
    "pytorch_model.bin",
    ".safetensors/..",
    "",
    7,
    null,
  ];
  for (const shard of outside) {
    const message = await refusal({ [INDEX]: index({ x: shard }) }, SyntaxError);
    for (const part of [INDEX, JSON.stringify(shard), 'tensor "x"', "download the checkpoint again"]) {
      assertStringIncludes(message, part);
    }
  }
});

Deno.test("openCheckpoint() refuses an index that is none", NO_LEAKS, async () => {
  assertStringIncludes(await refusal({ [INDEX]: "{" }, SyntaxError), "not valid JSON");
  assertStringIncludes(await refusal({ [INDEX]: "[]" }, SyntaxError), "not a JSON object");
  assertStringIncludes(await refusal({ [INDEX]: "{}" }, SyntaxError), "weight_map undefined");
  assertStringIncludes(await refusal({ [INDEX]: index(["x"]) }, SyntaxError), 'weight_map ["x"]');
  const twice = `{"weight_map":{"x":"${A}","x":"${B}"}}`;
  assertStringIncludes(await refusal({ [INDEX]: twice }, SyntaxError), '"x" twice');
});

Deno.test("openCheckpoint() refuses a shard that is a folder", NO_LEAKS, async () => {
  await using made = await folder({ [INDEX]: index({ a: A }) });
  await Deno.mkdir(made.file(A));
  await assertRejects(() => openCheckpoint(made.path), Error, "is not a file");
});

Deno.test("read() refuses a name that is not there and elements that are no floats", NO_LEAKS, async () => {
  const ids: Crafted = { dtype: "I64", shape: [1], data: new BigInt64Array(1) };
  await using made = await folder({ "model.safetensors": safetensors({ ids }) });
  using checkpoint = await openCheckpoint(made.path);
  const none = () => {};
  await assertRejects(() => checkpoint.read("id", "f32", none), Error, 'There is no tensor "id"');
  const error = await assertRejects(() => checkpoint.read("ids", "f32", none), TypeError, "stored as I64");
  assertStringIncludes(error.message, "only F32, F16, BF16 can be read");
});

Deno.test(
  "read() fails after the checkpoint was disposed of, also when that was meanwhile",
  NO_LEAKS,
  async () => {
    await using made = await folder({ "model.safetensors": safetensors({ x: floats(1, 2, 3, 4) }) });
    const checkpoint = await openCheckpoint(made.path);
    const chunks: number[] = [];
    const half = checkpoint.read("x", "f32", (_, offset) => {
      chunks.push(offset);
      checkpoint[Symbol.dispose]();
    }, { chunkBytes: 8 });
    await assertRejects(() => half, Error, "was disposed of");
    assertEquals(chunks, [0]);
    await assertRejects(() => checkpoint.read("x", "f32", () => {}), Error, "was disposed of");
    checkpoint[Symbol.dispose]();
  },
);
