// Loading: formats and shards give the same model, progress adds up, and what is wrong with a checkpoint is said and
// leaves nothing allocated.

import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { forward, generate } from "../../lib/generate/mod.ts";
import { GpuLostError, openGpu } from "../../lib/gpu/mod.ts";
import { loadModel, type LoadModelOptions, type LoadProgress } from "../../lib/models/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { largestDifference, NOVEL_LLAMA } from "../harness/models.ts";
import { randomIds, randomLlama } from "../harness/random_llama.ts";
import { type HostTensor, safetensorsBytes, writeCheckpoint } from "../harness/safetensors_writer.ts";
import { type Entry, fileBytes, folder } from "../weights/crafted.ts";

const gpu = await sharedGpu();
const SMALL = randomLlama({ vocab_size: 67 }, 3);
const IDS = randomIds(9, 67);
/** A class of errors. */
// deno-lint-ignore no-explicit-any
type ErrorType = new (...args: any[]) => Error;

type Files = Record<string, string | Uint8Array<ArrayBuffer>>;

/** Tensors of the small model with some replaced, or left out where undefined. */
function tensorsWith(changes: Record<string, HostTensor | undefined> = {}): Map<string, HostTensor> {
  const tensors = new Map(SMALL.tensors);
  for (const [name, tensor] of Object.entries(changes)) {
    if (tensor) tensors.set(name, tensor);
    else tensors.delete(name);
  }
  return tensors;
}

function config(changes: Record<string, unknown> = {}): string {
  return JSON.stringify({ ...SMALL.config, ...changes });
}

/** Logits of a checkpoint made of these files. */
async function logitsOf(files: Files, dtype: "f16" | "f32" = "f32"): Promise<Float32Array> {
  await using place = await folder(files);
  using model = await loadModel(gpu, place.path, { dtype });
  assertEquals(model.warnings, []);
  return (await forward(model, IDS)).logits;
}

/** Loads what cannot be loaded: the error says so, and nothing stays allocated. */
async function assertFails(
  files: Files,
  type: ErrorType,
  message: string,
  options: LoadModelOptions = {},
): Promise<void> {
  await using place = await folder(files);
  await assertRejects(() => loadModel(gpu, place.path, { dtype: "f32", ...options }), type, message);
  assertEquals(gpu.memory.holders(), {});
}

/** Rounds to what a storage type holds. */
function rounded(dtype: "F16" | "BF16"): Map<string, HostTensor> {
  return new Map([...SMALL.tensors].map(([name, { shape, data }]) => {
    if (dtype === "F16") return [name, { shape, data: new Float32Array(new Float16Array(data)) }];
    const words = new Uint32Array(new Float32Array(data).buffer)
      .map((word) => (word + 0x7fff + (word >>> 16 & 1)) >>> 16 << 16);
    return [name, { shape, data: new Float32Array(words.buffer) }];
  }));
}

const whole: Files = { "config.json": config(), "model.safetensors": safetensorsBytes(SMALL.tensors) };

for (const dtype of ["F16", "BF16"] as const) {
  Deno.test(`loadModel() of a checkpoint in ${dtype} gives the same as its values in F32`, async () => {
    const stored = { "config.json": config(), "model.safetensors": safetensorsBytes(SMALL.tensors, dtype) };
    const wide = { "config.json": config(), "model.safetensors": safetensorsBytes(rounded(dtype)) };
    const expected = await logitsOf(wide);
    assertEquals(await logitsOf(stored), expected);
    // And it is not simply that of other values.
    assertGreater(largestDifference(await logitsOf(whole), expected), 0);
    if (gpu.features.f16) assertEquals(await logitsOf(stored, "f16"), await logitsOf(wide, "f16"));
  });
}

Deno.test("loadModel() of shards with an index gives the same as of one file", async () => {
  const names = [...SMALL.tensors.keys()];
  const shardOf = (name: string) => `model-0000${1 + names.indexOf(name) % 3}-of-00003.safetensors`;
  const files: Files = {
    "config.json": config(),
    "model.safetensors.index.json": JSON.stringify({
      metadata: { total_size: 1 },
      weight_map: Object.fromEntries(names.map((name) => [name, shardOf(name)])),
    }),
  };
  for (const shard of new Set(names.map(shardOf))) {
    const own = [...SMALL.tensors].filter(([name]) => shardOf(name) === shard);
    files[shard] = safetensorsBytes(new Map(own));
  }
  assertEquals(await logitsOf(files), await logitsOf(whole));
  const [shard] = Object.keys(files).filter((name) => name.startsWith("model-"));
  const { [shard]: _, ...rest } = files;
  await assertFails(rest, Error, `${shard} is missing, but model.safetensors.index.json names it`);
});

Deno.test("loadModel() takes a tied table under either name, and a head of its own", async () => {
  const table = SMALL.tensors.get("model.embed_tokens.weight")!;
  const underHead = tensorsWith({ "model.embed_tokens.weight": undefined, "lm_head.weight": table });
  const expected = await logitsOf(whole);
  assertEquals(
    await logitsOf({ "config.json": config(), "model.safetensors": safetensorsBytes(underHead) }),
    expected,
  );
  const untied = config({ tie_word_embeddings: false });
  const both = safetensorsBytes(tensorsWith({ "lm_head.weight": table }));
  assertEquals(await logitsOf({ "config.json": untied, "model.safetensors": both }), expected);
  await assertFails(
    { ...whole, "config.json": untied },
    Error,
    "The checkpoint has no tensor lm_head.weight: it does not belong to this config.json, or a file is missing",
  );
});

Deno.test("loadModel() tells how far it is, and what it took", async () => {
  const told: LoadProgress[] = [];
  using model = await loadModel(gpu, NOVEL_LLAMA, { onProgress: (progress) => told.push(progress) });
  const { total } = told[0];
  assertEquals(told.at(-1)!.loaded, total);
  assertEquals(total, model.store!.bytes);
  assert(told.every(({ loaded }, i) => loaded > (told[i - 1]?.loaded ?? 0)));
  assert(new Set(told.map(({ tensor }) => tensor)).size > 50);
  assertGreater(model.loadMs, 0);
  assertEquals(model.dtype, gpu.features.f16 ? "f16" : "f32");
  assertEquals(gpu.memory.holders(), { weights: total });
});

Deno.test("loadModel() warns once of tensors that are not used, and never of rotary buffers", async () => {
  const extra = { shape: [2], data: Float32Array.of(1, 2) };
  const harmless = tensorsWith({ "model.layers.0.self_attn.rotary_emb.inv_freq": extra });
  await logitsOf({ "config.json": config(), "model.safetensors": safetensorsBytes(harmless) });

  const some = tensorsWith({ "model.extra.weight": extra, "visual.weight": extra });
  await using place = await folder({ "config.json": config(), "model.safetensors": safetensorsBytes(some) });
  using model = await loadModel(gpu, place.path);
  assertEquals(model.warnings, [
    "2 tensors of the checkpoint are not used: model.extra.weight, visual.weight",
  ]);
  const many = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`extra.${i}`, extra]));
  await using crowded = await folder({
    "config.json": config(),
    "model.safetensors": safetensorsBytes(tensorsWith(many)),
  });
  using second = await loadModel(gpu, crowded.path);
  assertEquals(second.warnings.length, 1);
  assert(/^40 tensors .*, …$/.test(second.warnings[0]), second.warnings[0]);
});

Deno.test("loadModel() names a tensor that is missing, has another shape or type, or holds NaN", async () => {
  const name = "model.layers.1.mlp.down_proj.weight";
  const { shape, data } = SMALL.tensors.get(name)!;
  const nan = data.slice();
  nan[77] = NaN;
  nan[78] = Infinity;
  const fails = (tensor: HostTensor | undefined, type: ErrorType, message: string) =>
    assertFails(
      { "config.json": config(), "model.safetensors": safetensorsBytes(tensorsWith({ [name]: tensor })) },
      type,
      message,
    );
  await fails(undefined, Error, `The checkpoint has no tensor ${name}: it does not belong`);
  await fails(
    { shape: shape.toReversed(), data },
    RangeError,
    `Tensor ${name} has shape [48, 32], config.json asks for [32, 48]`,
  );
  await fails({ shape: [...shape, 1], data }, RangeError, `Tensor ${name} has shape [32, 48, 1]`);
  await fails({ shape: [32 * 48], data }, RangeError, `Tensor ${name} has shape [1536]`);
  await fails(
    { shape, data: nan },
    RangeError,
    `Tensor ${name} holds 2 values that are NaN or infinite, the first at element 77: the checkpoint is damaged`,
  );
  const norm = "model.norm.weight";
  await assertFails(
    {
      "config.json": config(),
      "model.safetensors": safetensorsBytes(
        tensorsWith({ [norm]: { shape: [32], data: new Float32Array(32).fill(NaN) } }),
      ),
    },
    RangeError,
    `Tensor ${norm} holds 32 values that are NaN`,
  );
  // Integers are no weights.
  const { header, bytes } = open(whole["model.safetensors"] as Uint8Array<ArrayBuffer>);
  (header[name] as Entry).dtype = "I32";
  await assertFails(
    { "config.json": config(), "model.safetensors": fileBytes(JSON.stringify(header), bytes) },
    TypeError,
    "I32",
  );
});

Deno.test({
  name: "loadModel() in f16 names a tensor with values beyond its range, and f32 takes it",
  ignore: !gpu.features.f16,
  async fn(): Promise<void> {
    const name = "model.layers.0.mlp.up_proj.weight";
    const { shape, data } = SMALL.tensors.get(name)!;
    for (const stored of ["F32", "BF16"] as const) {
      const large = data.slice();
      large[5] = 65536;
      large[9] = -1e6;
      const files = {
        "config.json": config(),
        "model.safetensors": safetensorsBytes(tensorsWith({ [name]: { shape, data: large } }), stored),
      };
      await assertFails(
        files,
        RangeError,
        `Tensor ${name} holds 2 values beyond 65504, which f16 cannot hold: load the model with dtype f32`,
        { dtype: "f16" },
      );
      await logitsOf(files, "f32");
      large[5] = 65504;
      large[9] = -65504;
      await logitsOf({
        "config.json": config(),
        "model.safetensors": safetensorsBytes(tensorsWith({ [name]: { shape, data: large } })),
      }, "f16");
    }
  },
});

/** Header and bytes of a file. */
function open(
  file: Uint8Array<ArrayBuffer>,
): { header: Record<string, Entry>; bytes: Uint8Array<ArrayBuffer> } {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  return {
    header: JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))),
    bytes: file.slice(8 + length),
  };
}

Deno.test("loadModel() of a damaged or truncated file says what is wrong with it", async () => {
  const file = whole["model.safetensors"] as Uint8Array<ArrayBuffer>;
  const { header, bytes } = open(file);
  const names = Object.keys(header);
  const [first, second] = names;
  const last = names.at(-1)!;
  const json = JSON.stringify(header);
  const [, end] = header[first].data_offsets as [number, number];
  const moved = (name: string, by: number) => {
    const [from, to] = header[name].data_offsets as [number, number];
    const entry = { ...header[name], data_offsets: [from + by, to + by] };
    return fileBytes(JSON.stringify({ ...header, [name]: entry }), bytes);
  };
  const longer = { ...header[first], data_offsets: [0, end + 4] };
  const damaged: [Uint8Array<ArrayBuffer>, string][] = [
    [file.slice(0, file.length - 10), "it is cut short"],
    [file.slice(0, 200), "it is cut short"],
    [file.slice(0, 4), "has 4 bytes, too few for a safetensors file"],
    [new Uint8Array(), "has 0 bytes, too few"],
    [fileBytes(json, bytes, 2n ** 40n), "claims a header of 1099511627776 bytes"],
    [fileBytes(json, bytes, BigInt(file.length)), "it is cut short"],
    [fileBytes(json, bytes, BigInt(json.length - 5)), "model.safetensors"],
    [fileBytes(json, bytes, BigInt(json.length + 64)), "model.safetensors"],
    [
      fileBytes(JSON.stringify({ ...header, [first]: longer }), bytes),
      `takes ${end + 4} bytes, but F32 of shape`,
    ],
    [moved(last, bytes.length), `Tensor "${last}"`],
    [moved(second, -4), `inside of tensor "${first}"`],
    [moved(last, 4), `but the file has`],
    [fileBytes("not json at all", bytes), "model.safetensors"],
  ];
  for (const [model, message] of damaged) {
    await assertFails({ "config.json": config(), "model.safetensors": model }, SyntaxError, message);
  }
});

Deno.test("loadModel() of a folder without weights says what to download", async () => {
  await assertFails(
    { "config.json": config() },
    Error,
    "has no model.safetensors and no model.safetensors.index.json",
  );
  await assertFails({ "config.json": config(), "pytorch_model.bin": "x" }, Error, "but pytorch_model.bin");
  await assertFails(
    { "model.safetensors": whole["model.safetensors"] },
    Error,
    "There is no config.json in",
  );
  await assertFails({ ...whole, "config.json": config({ hidden_act: "relu" }) }, TypeError, "hidden_act");
  await assertFails(
    { ...whole, "generation_config.json": "{" },
    SyntaxError,
    "generation_config.json is not JSON",
  );
  await assertFails({ ...whole, "tokenizer.json": "{" }, SyntaxError, "tokenizer.json");
});

Deno.test("loadModel() that is aborted before or in the middle leaves nothing", async () => {
  const early = AbortSignal.abort(new Error("too late"));
  await assertRejects(() => loadModel(gpu, NOVEL_LLAMA, { signal: early }), Error, "too late");
  for (const after of [1, 5, 30]) {
    const abort = new AbortController();
    let told = 0;
    const onProgress = () => {
      if (++told === after) abort.abort(new Error("enough"));
    };
    await assertRejects(
      () => loadModel(gpu, NOVEL_LLAMA, { signal: abort.signal, onProgress }),
      Error,
      "enough",
    );
    assertEquals(told, after);
    assertEquals(gpu.memory.holders(), {});
  }
  const fails = () => {
    throw new Error("the caller's own");
  };
  await assertRejects(() => loadModel(gpu, NOVEL_LLAMA, { onProgress: fails }), Error, "the caller's own");
  assertEquals(gpu.memory.holders(), {});
});

Deno.test("loadModel() on a device that was disposed of before, or is lost in the middle, says so", async () => {
  const closed = await openGpu();
  closed[Symbol.dispose]();
  await assertRejects(() => loadModel(closed, NOVEL_LLAMA), Error, "disposed of");
  const lost = await openGpu();
  let told = 0;
  const onProgress = () => {
    if (++told === 3) lost.device.destroy();
  };
  await assertRejects(() => loadModel(lost, NOVEL_LLAMA, { onProgress }), GpuLostError, "Open it again");
  assertEquals(lost.memory.holders(), {});
  lost[Symbol.dispose]();
});

Deno.test("loadModel() in f16 on a device without it names the remedy", async () => {
  using plain = await openGpu({ withoutF16: true });
  await assertRejects(
    () => loadModel(plain, NOVEL_LLAMA, { dtype: "f16" }),
    RangeError,
    "load the model with dtype f32",
  );
  using model = await loadModel(plain, NOVEL_LLAMA);
  assertEquals(model.dtype, "f32");
  assertEquals((await generate(model, [1, 2], { maxTokens: 2, ignoreEos: true }).record).ids.length, 2);
});

Deno.test("loadModel() twice side by side gives models of their own, whole when their folder is gone", async () => {
  const directory = await Deno.makeTempDir();
  await writeCheckpoint(directory, { ...SMALL.config }, SMALL.tensors);
  const [first, second] = await Promise.all([0, 1].map(() => loadModel(gpu, directory, { dtype: "f32" })));
  await Deno.remove(join(directory, "model.safetensors"));
  await Deno.remove(directory, { recursive: true });
  const before = (await forward(first, IDS)).logits;
  assertEquals((await forward(second, IDS)).logits, before);
  first[Symbol.dispose]();
  assertEquals((await forward(second, IDS)).logits, before);
  second[Symbol.dispose]();
  assertEquals(gpu.memory.holders(), {});
});

Deno.test("loadModel() keeps little of a large checkpoint on the host: what is written is flushed on the way", async () => {
  const large = randomLlama({ vocab_size: 300_000, hidden_size: 64, tie_word_embeddings: true }, 5);
  const place = await Deno.makeTempDir({ prefix: "large" });
  using device = await openGpu();
  const { queue } = device.device;
  const { writeBuffer, onSubmittedWorkDone } = queue;
  let waiting = 0;
  let most = 0;
  let total = 0;
  queue.writeBuffer = (buffer, offset, data, ...rest) => {
    waiting += data.byteLength;
    total += data.byteLength;
    most = Math.max(most, waiting);
    writeBuffer.call(queue, buffer, offset, data, ...rest);
  };
  queue.onSubmittedWorkDone = () => {
    waiting = 0;
    return onSubmittedWorkDone.call(queue);
  };
  try {
    await writeCheckpoint(place, { ...large.config }, large.tensors);
    using _model = await loadModel(device, place, { dtype: "f32" });
    assertGreater(total, 72 * 2 ** 20);
    // 32 MiB and a chunk of 16.
    assert(most <= 48 * 2 ** 20, `${most} bytes were held at once`);
  } finally {
    await Deno.remove(place, { recursive: true });
  }
});
