// A checkpoint: the tensors of a folder, in one safetensors file or in several.

import { join } from "@std/path";
import type { TargetType } from "./convert.ts";
import { type FileReader, openFileReader } from "./file_reader.ts";
import { shown } from "./json_object.ts";
import { type OnChunk, type ReadOptions, type ReadReport, readTensor } from "./read_tensor.ts";
import { readSafetensorsHeader, type TensorInfo } from "./safetensors.ts";
import { readShardIndex } from "./shard_index.ts";

/** An open checkpoint. Holds its files open until it is disposed of. */
export interface Checkpoint extends Disposable {
  /** The folder it is in. */
  readonly directory: string;
  /** Its tensors by name, in the order of their bytes in the files: reading them in turn reads the files once through. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The `__metadata__` of its files; where they differ, of the first. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Reads a tensor, or a range of it, in chunks, converted to f32 or f16 with rounding to nearest, ties to even.
   *
   * NaN, infinities and values that f16 cannot hold are passed on (the latter as infinity) and counted in the report.
   *
   * @param name The tensor's name.
   * @param target Type of the elements that `onChunk` gets, little-endian.
   * @param onChunk Called with each chunk in turn, and waited for. Not called for a tensor without elements.
   * @throws {TypeError} when the elements are not stored as F32, F16 or BF16.
   * @throws {RangeError} when `range` is not inside of the tensor, or `chunkBytes` holds no two elements.
   * @throws {Error} when there is no such tensor, or its file changed since it was opened, which is noticed at the
   * latest after the last chunk: until the promise is fulfilled, what `onChunk` got may be wrong.
   */
  read(name: string, target: TargetType, onChunk: OnChunk, options?: ReadOptions): Promise<ReadReport>;
  /** Closes the files. Harmless when done already. */
  [Symbol.dispose](): void;
}

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/**
 * Opens the checkpoint in a folder: `model.safetensors`, or else the shards that `model.safetensors.index.json` names.
 *
 * Only headers are read, and checked whole. Tensors that are in a shard but not in the index are taken too.
 *
 * @throws {Error} when the folder or a file is missing, or holds weights of another format only.
 * @throws {SyntaxError} when a file is not well-formed, or the index and the shards do not agree.
 */
export async function openCheckpoint(directory: string): Promise<Checkpoint> {
  const names = await fileNames(directory);
  if (!names.has(SINGLE) && !names.has(INDEX)) throw new Error(noCheckpoint(directory, names));
  const index = names.has(SINGLE) ? undefined : await readShardIndex(join(directory, INDEX));
  using opening = new DisposableStack(); // closes what is open when something below throws
  const files = new Map<string, FileReader>();
  const tensors = new Map<string, TensorInfo>();
  let metadata: Record<string, string> = {};
  for (const shard of index ? [...new Set(index.values())].sort() : [SINGLE]) {
    const path = join(directory, shard);
    if (!names.has(shard)) {
      throw new Error(
        `${path} is missing, but ${INDEX} names it: download it, or the whole checkpoint again`,
      );
    }
    const file = opening.use(await openFileReader(path));
    files.set(path, file);
    const header = await readSafetensorsHeader(file);
    metadata = { ...header.metadata, ...metadata };
    for (const tensor of header.tensors) {
      const owner = index?.get(tensor.name) ?? shard;
      if (owner !== shard) continue;
      const other = tensors.get(tensor.name);
      if (other) {
        throw new SyntaxError(
          `Tensor ${
            shown(tensor.name)
          } is in ${other.file} and in ${path}, and ${INDEX} does not say which one ` +
            "counts: download the checkpoint again",
        );
      }
      tensors.set(tensor.name, tensor);
    }
  }
  for (const [name, shard] of index ?? []) {
    if (!tensors.has(name)) {
      throw new SyntaxError(
        `Tensor ${shown(name)} is not in ${
          join(directory, shard)
        }, where ${INDEX} says it is: download both again`,
      );
    }
  }
  const opened = opening.move();
  return {
    directory,
    tensors,
    metadata,
    async read(name, target, onChunk, options): Promise<ReadReport> {
      const tensor = tensors.get(name);
      if (!tensor) {
        throw new Error(
          `There is no tensor ${
            shown(name)
          } in ${directory}: ask for one of the ${tensors.size} in its header`,
        );
      }
      return await readTensor(files.get(tensor.file)!, tensor, target, onChunk, options);
    },
    [Symbol.dispose]: () => opened.dispose(),
  };
}

/**
 * Whether a folder holds a checkpoint that {@linkcode openCheckpoint} can open; what is in it is not looked at.
 *
 * @throws {Error} when there is no such folder.
 */
export async function hasCheckpoint(directory: string): Promise<boolean> {
  const names = await fileNames(directory);
  return names.has(SINGLE) || names.has(INDEX);
}

async function fileNames(directory: string): Promise<Set<string>> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(directory);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new Error(`There is no folder ${directory}: check the path, or download the model`, { cause });
  }
  if (!info.isDirectory) {
    throw new Error(`${directory} is not a folder: give the one that holds ${SINGLE} and config.json`);
  }
  return new Set(await Array.fromAsync(Deno.readDir(directory), ({ name }) => name));
}

/** Says what is wrong with a folder without a checkpoint. */
function noCheckpoint(directory: string, names: ReadonlySet<string>): string {
  const all = [...names].sort();
  const wanted = `${directory} has no ${SINGLE} and no ${INDEX}`;
  const safetensors = all.find((name) => name.endsWith(".safetensors"));
  if (safetensors && /-of-\d+\.safetensors$/.test(safetensors)) {
    return `${wanted}, but shards such as ${safetensors}: download the index too`;
  }
  if (safetensors) return `${wanted}, but ${safetensors}: rename it to ${SINGLE} if it holds the model`;
  const pickles = all.filter((name) => /\.(bin|pt|pth|ckpt)$/.test(name));
  const pickle = pickles.find((name) => name.startsWith("pytorch_model")) ?? pickles[0];
  if (pickle) {
    // Without the model's own code, which from_pretrained would run for architectures outside of transformers.
    const script = "import glob, torch; from safetensors.torch import save_file; t = {}; " +
      `[t.update(torch.load(f, "cpu", weights_only=True)) for f in glob.glob("${
        pickle.replace(/[-.\d]*(-of-\d+)?(\.\w+)$/, "*$2")
      }")]; ` +
      `save_file({k: v.clone() for k, v in t.items()}, "${SINGLE}", {"format": "pt"})`;
    return `${wanted}, but ${pickle}, which is not read because such a file may run any program when it is opened: ` +
      `convert it in Python, in that folder: ${script}`;
  }
  const gguf = all.find((name) => name.endsWith(".gguf"));
  if (gguf) return `${wanted}, but ${gguf}, a format that is not read: download the safetensors checkpoint`;
  return `${wanted}: download one of them into it`;
}
