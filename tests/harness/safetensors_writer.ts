// Writes checkpoints in Hugging Face layout: a folder with config.json and model.safetensors.

import { join } from "@std/path";
import { type Crafted, safetensors } from "../weights/crafted.ts";

/** A tensor to be written. */
export interface HostTensor {
  /** Sizes of its dimensions, the slowest first. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Float32Array<ArrayBuffer>;
}

/** Element types that can be written; F16 and BF16 round to nearest. */
export type WrittenType = "F32" | "F16" | "BF16";

/** Elements in a storage type. */
export function encodeElements(
  data: Float32Array<ArrayBuffer>,
  dtype: WrittenType,
): ArrayBufferView<ArrayBuffer> {
  if (dtype === "F32") return data;
  if (dtype === "F16") return new Float16Array(data);
  const words = new Uint32Array(data.buffer, data.byteOffset, data.length);
  // Half of a unit in the last place kept, and the tie to even.
  return Uint16Array.from(words, (word) => (word + 0x7fff + (word >>> 16 & 1)) >>> 16);
}

/** A safetensors file of these tensors. */
export function safetensorsBytes(
  tensors: ReadonlyMap<string, HostTensor>,
  dtype: WrittenType = "F32",
): Uint8Array<ArrayBuffer> {
  const crafted: Record<string, Crafted> = {};
  for (const [name, { shape, data }] of tensors) {
    crafted[name] = { dtype, shape: [...shape], data: encodeElements(data, dtype) };
  }
  return safetensors(crafted);
}

/** Writes `config.json` and `model.safetensors` into a folder that is there. */
export async function writeCheckpoint(
  directory: string,
  config: Readonly<Record<string, unknown>>,
  tensors: ReadonlyMap<string, HostTensor>,
  dtype: WrittenType = "F32",
): Promise<void> {
  await Deno.writeTextFile(join(directory, "config.json"), JSON.stringify(config, null, 1));
  await Deno.writeFile(join(directory, "model.safetensors"), safetensorsBytes(tensors, dtype));
}
