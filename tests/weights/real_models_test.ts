// Every tensor of the real checkpoints that lie beside the repository, where there are any.

import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { openCheckpoint } from "../../lib/weights/mod.ts";

const MODELS = fromFileUrl(new URL("../../../shared/models", import.meta.url));

function directories(): string[] {
  try {
    return [...Deno.readDirSync(MODELS)].filter(({ isDirectory }) => isDirectory)
      .map(({ name }) => join(MODELS, name))
      .filter((path) => [...Deno.readDirSync(path)].some(({ name }) => name === "model.safetensors"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

const found = directories();

Deno.test({
  name: "read() reads every tensor of ../shared/models",
  ignore: found.length === 0,
  async fn() {
    for (const directory of found) {
      const file = await Deno.readFile(join(directory, "model.safetensors"));
      using checkpoint = await openCheckpoint(directory);
      assert(checkpoint.tensors.size > 0);
      for (const [name, { dtype, offset, bytes, elements }] of checkpoint.tensors) {
        const stored = file.slice(offset, offset + bytes).buffer;
        assert(dtype === "F32" || dtype === "F16", `${name} is ${dtype}`);
        const values = dtype === "F32"
          ? new Float32Array(stored)
          : Float32Array.from(new Float16Array(stored));
        const wide = new Float32Array(elements);
        const report = await checkpoint.read(name, "f32", (chunk, first) => {
          wide.set(new Float32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4), first);
        }, { chunkBytes: 50_000 });
        assertEquals(report, { nonFinite: 0, outOfRange: 0, underflow: 0 }, `${directory} ${name}`);
        assert(wide.every((value, i) => Object.is(value, values[i])), `${directory} ${name} as f32`);
        const narrow = new Float16Array(elements);
        const { nonFinite, outOfRange } = await checkpoint.read(name, "f16", (chunk, first) => {
          narrow.set(new Float16Array(chunk.buffer, chunk.byteOffset, chunk.length / 2), first);
        });
        assertEquals([nonFinite, outOfRange], [0, 0], `${directory} ${name}`);
        const rounded = Float16Array.from(values);
        assert(narrow.every((value, i) => Object.is(value, rounded[i])), `${directory} ${name} as f16`);
      }
    }
  },
});
