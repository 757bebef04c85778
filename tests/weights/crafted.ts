/**
 * Safetensors files made by hand, right and wrong ones, in folders that are removed after the test.
 *
 * @module
 */

import { join } from "@std/path";

/** A tensor to write. */
export interface Crafted {
  /** Element type, not checked. */
  dtype: string;
  /** Shape, not checked. */
  shape: number[];
  /** The bytes to store. */
  data: ArrayBufferView<ArrayBuffer>;
}

/** An entry of a header, right or wrong. */
export type Entry = { dtype: unknown; shape: unknown; data_offsets: unknown };

/** Header and bytes, with the length in front, or another one that is claimed. */
export function fileBytes(
  header: string | Uint8Array,
  data: ArrayBufferView<ArrayBuffer> = new Uint8Array(),
  claimed?: bigint,
): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + data.byteLength);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 8 + text.length);
  return bytes;
}

/** A well-formed file of these tensors, one after another. */
export function safetensors(
  tensors: Record<string, Crafted>,
  metadata?: Record<string, string>,
): Uint8Array<ArrayBuffer> {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end += data.byteLength] };
  }
  const all = new Uint8Array(end);
  let begin = 0;
  for (const { data } of Object.values(tensors)) {
    all.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), begin);
    begin += data.byteLength;
  }
  return fileBytes(JSON.stringify(header), all);
}

/** A vector of f32. */
export function floats(...values: number[]): Crafted {
  return { dtype: "F32", shape: [values.length], data: Float32Array.from(values) };
}

/** A folder of files that is removed with the end of its scope. */
export async function folder(
  files: Record<string, string | Uint8Array<ArrayBuffer>>,
): Promise<AsyncDisposable & { path: string; file(name: string): string }> {
  const path = await Deno.makeTempDir({ prefix: "weights" });
  for (const [name, content] of Object.entries(files)) {
    await Deno.writeFile(
      join(path, name),
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    );
  }
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }),
  };
}
