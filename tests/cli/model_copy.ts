// A changed copy of the test model.

import { join } from "@std/path";
import { MODEL, ROOT } from "./fake_io.ts";

/** What is other in the copy. */
export interface ModelCopyOptions {
  /** Files left out. */
  readonly without?: readonly string[];
  /** Name of a tensor that no layer asks for. */
  readonly extraTensor?: string;
  /** Fields of config.json. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** A copy, removed when it is disposed of. */
export interface ModelCopy extends AsyncDisposable {
  /** Its folder. */
  readonly directory: string;
}

/** The same safetensors file with one more tensor of a single f16 number. */
function withTensor(file: Uint8Array, name: string): Uint8Array {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  const data = file.subarray(8 + length);
  header[name] = { dtype: "F16", shape: [1], data_offsets: [data.length, data.length + 2] };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const whole = new Uint8Array(8 + text.length + data.length + 2);
  new DataView(whole.buffer).setBigUint64(0, BigInt(text.length), true);
  whole.set(text, 8);
  whole.set(data, 8 + text.length);
  return whole;
}

/** Copies the test model. */
export async function modelCopy(options: ModelCopyOptions): Promise<ModelCopy> {
  const { without = [], extraTensor, config } = options;
  const directory = await Deno.makeTempDir();
  for await (const { name } of Deno.readDir(join(ROOT, MODEL))) {
    if (!without.includes(name)) await Deno.copyFile(join(ROOT, MODEL, name), join(directory, name));
  }
  const weights = join(directory, "model.safetensors");
  if (extraTensor) await Deno.writeFile(weights, withTensor(await Deno.readFile(weights), extraTensor));
  if (config) {
    const path = join(directory, "config.json");
    const fields = JSON.parse(await Deno.readTextFile(path));
    await Deno.writeTextFile(path, JSON.stringify({ ...fields, ...config }));
  }
  return { directory, [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }) };
}
