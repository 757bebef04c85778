// The safetensors format: eight bytes with the length of the header, the header as JSON, then the tensors' bytes.
// A header is checked whole before any tensor is read, as strictly as the reference implementation does:
// https://github.com/huggingface/safetensors#format

import { type Dtype, dtypeBits, DTYPES, isDtype } from "./dtype.ts";
import type { FileReader } from "./file_reader.ts";
import { isObject, parseJsonObject, shown } from "./json_object.ts";

/** Where a tensor is stored, and as what. */
export interface TensorInfo {
  /** Its name. */
  readonly name: string;
  /** Type of the stored elements. */
  readonly dtype: Dtype;
  /** Sizes of its dimensions, the slowest first; none for a scalar. */
  readonly shape: readonly number[];
  /** Number of elements: the product of the shape. */
  readonly elements: number;
  /** Path of the file that holds it. */
  readonly file: string;
  /** Offset of its first byte from the beginning of the file. */
  readonly offset: number;
  /** Its length in bytes. */
  readonly bytes: number;
}

/** What the header of a file says. */
export interface SafetensorsHeader {
  /** The tensors in the order of their bytes in the file. */
  readonly tensors: readonly TensorInfo[];
  /** The header's `__metadata__`; empty where it has none. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Longest header that is read, in bytes: the limit of the reference implementation. */
export const MAX_HEADER_BYTES = 100_000_000;

const LENGTH_BYTES = 8;

/**
 * Reads and checks the header of a safetensors file.
 *
 * @throws {SyntaxError} when the file is not well-formed: too short or too long for its header, a header that is not
 * the JSON the format wants, or a tensor whose type, shape and place in the file do not agree.
 */
export async function readSafetensorsHeader(file: FileReader): Promise<SafetensorsHeader> {
  const { path, size } = file;
  if (size < LENGTH_BYTES) {
    throw new SyntaxError(
      `${path} has ${size} bytes, too few for a safetensors file, which begins with ${LENGTH_BYTES} bytes of ` +
        "header length: download it again",
    );
  }
  const start = new Uint8Array(LENGTH_BYTES);
  await file.readAt(0, start);
  const length = headerLength(start, file);
  const header = new Uint8Array(length);
  await file.readAt(LENGTH_BYTES, header);
  return parseSafetensorsHeader(header, path, size - LENGTH_BYTES - length);
}

/**
 * Parses and checks the JSON of a header.
 *
 * @param header The header's bytes, without its length.
 * @param path The file's path, for messages and `TensorInfo.file`.
 * @param dataBytes Bytes of the file after the header.
 * @throws {SyntaxError} as `readSafetensorsHeader` does.
 */
export function parseSafetensorsHeader(
  header: Uint8Array,
  path: string,
  dataBytes: number,
): SafetensorsHeader {
  const entries = parseJsonObject(decode(header, path), `The header of ${path}`);
  const dataStart = LENGTH_BYTES + header.length;
  const tensors: TensorInfo[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(entries)) {
    if (name === "__metadata__") metadata = checkedMetadata(entry, path);
    else tensors.push(checkedTensor(name, entry, path, dataStart));
  }
  // A tensor without elements comes before the one that begins at the same byte.
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  checkPlaces(tensors, path, dataStart, dataStart + dataBytes);
  return { tensors, metadata };
}

/** What else comes under the name of a safetensors file, by its first bytes; as a length, all are over the limit. */
const IMPOSTORS: readonly [start: string, remedy: string][] = [
  ["version ", "is a Git LFS pointer, not the file itself: fetch the file with `git lfs pull`"],
  ["PK\x03\x04", "is a zip archive, as PyTorch writes them: convert it to safetensors"],
  ["GGUF", "is a GGUF file: use the safetensors checkpoint of the model"],
  ["<!", "is a web page: download it again, with the access that the model asks for"],
  ["<html", "is a web page: download it again, with the access that the model asks for"],
];

function headerLength(start: Uint8Array<ArrayBuffer>, { path, size }: FileReader): number {
  const length = new DataView(start.buffer).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    const text = String.fromCharCode(...start);
    const impostor = IMPOSTORS.find(([magic]) => text.startsWith(magic));
    throw new SyntaxError(
      `${path} ` + (impostor?.[1] ??
        `claims a header of ${length} bytes, over the limit of ${MAX_HEADER_BYTES}: it is damaged or not a ` +
          "safetensors file, download it again"),
    );
  }
  if (length > size - LENGTH_BYTES) {
    throw new SyntaxError(
      `${path} claims a header of ${length} bytes but has only ${size} bytes in all: it is cut short, ` +
        "download it again",
    );
  }
  return Number(length);
}

function decode(header: Uint8Array, path: string): string {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header);
  } catch (cause) {
    throw new SyntaxError(`The header of ${path} is not valid UTF-8: download it again`, { cause });
  }
  if (!text.startsWith("{")) {
    throw new SyntaxError(
      `The header of ${path} begins with ${
        shown(text.slice(0, 1))
      } where the format wants "{": download it again`,
    );
  }
  return text;
}

function checkedMetadata(metadata: unknown, path: string): Record<string, string> {
  if (!isObject(metadata)) {
    throw new SyntaxError(
      `The __metadata__ of ${path} is not an object but ${shown(metadata)}: convert the checkpoint again`,
    );
  }
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== "string") {
      throw new SyntaxError(
        `The __metadata__ of ${path} has the value ${shown(value)} for ${
          shown(key)
        } where the format wants text: ` +
          "convert the checkpoint again",
      );
    }
  }
  return metadata as Record<string, string>;
}

/** Checks one entry by itself: its type, its shape, and that the length of its range follows from both. */
function checkedTensor(name: string, entry: unknown, path: string, dataStart: number): TensorInfo {
  const what = `Tensor ${shown(name)} of ${path}`;
  if (!isObject(entry)) {
    throw new SyntaxError(`${what} is described by ${shown(entry)}, not by an object: download it again`);
  }
  const { dtype, shape, data_offsets: range } = entry;
  if (!isDtype(dtype)) {
    throw new SyntaxError(
      `${what} has the unknown dtype ${shown(dtype)}, the format has ${DTYPES.join(", ")}: ` +
        "convert the checkpoint to F16, BF16 or F32",
    );
  }
  if (!isSizes(shape)) {
    throw new SyntaxError(
      `${what} has the shape ${
        shown(shape)
      }, which is not a list of whole numbers from 0 on: download it again`,
    );
  }
  if (!isSizes(range) || range.length !== 2) {
    throw new SyntaxError(
      `${what} has the data_offsets ${
        shown(range)
      }, which are not two whole numbers from 0 on: download it again`,
    );
  }
  const [begin, end] = range;
  if (begin > end) {
    throw new SyntaxError(`${what} begins at byte ${begin} and ends before it, at ${end}: download it again`);
  }
  const elements = shape.reduce((product, size) => product * size, 1);
  const bits = elements * dtypeBits(dtype);
  if (!Number.isSafeInteger(bits)) {
    throw new SyntaxError(
      `${what} has the shape ${shown(shape)}, more elements than can be counted: download it again`,
    );
  }
  if (bits !== (end - begin) * 8) {
    throw new SyntaxError(
      `${what} takes ${end - begin} bytes, but ${dtype} of shape ${shown(shape)} takes ${bits / 8}: ` +
        "download it again",
    );
  }
  return { name, dtype, shape, elements, file: path, offset: dataStart + begin, bytes: end - begin };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** Checks the tensors together: the format wants them to fill the file, one after another. */
function checkPlaces(tensors: readonly TensorInfo[], path: string, dataStart: number, dataEnd: number): void {
  let end = dataStart;
  let previous: TensorInfo | undefined;
  for (const tensor of tensors) {
    const what = `Tensor ${shown(tensor.name)} of ${path}`;
    if (tensor.offset + tensor.bytes > dataEnd) {
      throw new SyntaxError(
        `${what} ends at byte ${
          tensor.offset + tensor.bytes
        }, but the file has ${dataEnd}: it is cut short, ` +
          "download it again",
      );
    }
    if (tensor.offset < end) {
      throw new SyntaxError(
        `${what} begins at byte ${tensor.offset}, inside of tensor ${
          shown(previous!.name)
        }, which ends at ${end}: ` +
          "convert the checkpoint again",
      );
    }
    if (tensor.offset > end) {
      throw new SyntaxError(
        `${what} begins at byte ${tensor.offset}, but what is before it ends at ${end}, and the format allows no ` +
          "holes: convert the checkpoint again",
      );
    }
    end = tensor.offset + tensor.bytes;
    previous = tensor;
  }
  if (end < dataEnd) {
    throw new SyntaxError(
      `${path} has ${
        dataEnd - end
      } bytes after its last tensor, and the format allows no holes: download it again`,
    );
  }
}
