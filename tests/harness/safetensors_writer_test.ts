import { assertEquals } from "@std/assert";
import { openCheckpoint } from "../../lib/weights/mod.ts";
import { folder } from "../weights/crafted.ts";
import { writeCheckpoint, type WrittenType } from "./safetensors_writer.ts";

// Numbers with few bits, one that every type rounds, and one that only F16 cannot hold.
const VALUES = [0, -1.5, 0.25, 1 + 2 ** -11 + 2 ** -12, 98304];

const STORED: Record<WrittenType, number[]> = {
  F32: VALUES,
  F16: [0, -1.5, 0.25, 1 + 2 ** -10, Infinity],
  BF16: [0, -1.5, 0.25, 1, 98304],
};

for (const [dtype, stored] of Object.entries(STORED) as [WrittenType, number[]][]) {
  Deno.test(`writeCheckpoint() writes ${dtype} that openCheckpoint() reads`, async () => {
    await using place = await folder({});
    const tensors = new Map([
      ["odd", { shape: [5], data: Float32Array.from(VALUES) }],
      ["matrix", { shape: [1, 2], data: Float32Array.from([3, 4]) }],
    ]);
    await writeCheckpoint(place.path, { model_type: "llama" }, tensors, dtype);
    assertEquals(JSON.parse(await Deno.readTextFile(place.file("config.json"))), { model_type: "llama" });
    using checkpoint = await openCheckpoint(place.path);
    assertEquals(checkpoint.tensors.get("matrix")!.shape, [1, 2]);
    const read: Record<string, number[]> = {};
    for (const name of tensors.keys()) {
      await checkpoint.read(name, "f32", (bytes) => {
        read[name] = [...new Float32Array(bytes.slice().buffer)];
      });
    }
    assertEquals(read, { odd: stored, matrix: [3, 4] });
  });
}
