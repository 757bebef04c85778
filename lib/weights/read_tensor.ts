// Streaming one tensor from its file: bounded chunks, converted on the way.

import { converter, type Tally, targetBytes, type TargetType } from "./convert.ts";
import { dtypeBits, FLOAT_DTYPES, isFloatDtype } from "./dtype.ts";
import type { FileReader } from "./file_reader.ts";
import { shown } from "./json_object.ts";
import type { TensorInfo } from "./safetensors.ts";

/**
 * Takes consecutive elements of a tensor, little-endian.
 *
 * The bytes are valid until it returns, or until the promise it returns settles: the next chunk overwrites them.
 *
 * @param bytes Converted elements. Their number is even in all chunks but the last.
 * @param elementOffset Index of the first of them in the tensor (not in the range).
 */
export type OnChunk = (bytes: Uint8Array<ArrayBuffer>, elementOffset: number) => void | Promise<void>;

/** What of a tensor to read, and how. */
export interface ReadOptions {
  /** Ends the reading between two chunks; the signal's reason is thrown. */
  readonly signal?: AbortSignal;
  /** Most bytes of a chunk, stored or converted, and about all the memory that reading takes; 16 MiB by default. */
  readonly chunkBytes?: number;
  /** The elements to read: `count` of them from `first` on; all by default. */
  readonly range?: { readonly first: number; readonly count: number };
}

/** What reading met. Nothing of it is an error here; whether a model can work with it is for the caller to say. */
export type ReadReport = Readonly<Tally>;

const DEFAULT_CHUNK_BYTES = 16 * 1024 * 1024;

/**
 * Reads a tensor, or a range of it, in chunks.
 *
 * @throws {TypeError} when its elements are not floats.
 * @throws {RangeError} when the range is not inside of the tensor, or `chunkBytes` is too small.
 * @throws {Error} when the file was closed, or changed since it was opened.
 */
export async function readTensor(
  file: FileReader,
  tensor: TensorInfo,
  target: TargetType,
  onChunk: OnChunk,
  options: ReadOptions = {},
): Promise<ReadReport> {
  const { signal, chunkBytes = DEFAULT_CHUNK_BYTES, range = { first: 0, count: tensor.elements } } = options;
  const what = `Tensor ${shown(tensor.name)} of ${tensor.file}`;
  if (!isFloatDtype(tensor.dtype)) {
    throw new TypeError(
      `${what} is stored as ${tensor.dtype}, only ${
        FLOAT_DTYPES.join(", ")
      } can be read: convert the checkpoint`,
    );
  }
  checkRange(range, tensor, what);
  const sourceBytes = dtypeBits(tensor.dtype) / 8;
  const width = Math.max(sourceBytes, targetBytes(target));
  const chunk = chunkElements(chunkBytes, width);
  const convert = converter(tensor.dtype, target);
  const tally: Tally = { nonFinite: 0, outOfRange: 0, underflow: 0 };
  const buffer = new ArrayBuffer(width * Math.min(chunk, range.count));
  const end = range.first + range.count;
  try {
    signal?.throwIfAborted();
    for (let first = range.first; first < end; first += chunk) {
      const count = Math.min(chunk, end - first);
      const stored = new Uint8Array(buffer, count * (width - sourceBytes), count * sourceBytes);
      await file.readAt(tensor.offset + first * sourceBytes, stored);
      signal?.throwIfAborted();
      convert(buffer, count, first, tally);
      await onChunk(new Uint8Array(buffer, 0, count * targetBytes(target)), first);
      signal?.throwIfAborted();
    }
  } finally {
    // Frees the memory now: left to the garbage collector, the chunks of many tensors would add up.
    buffer.transfer(0);
  }
  await file.assertUnchanged();
  return tally;
}

function checkRange(
  { first, count }: { first: number; count: number },
  tensor: TensorInfo,
  what: string,
): void {
  const whole = Number.isSafeInteger(first) && Number.isSafeInteger(count);
  if (!whole || first < 0 || count < 0 || first + count > tensor.elements) {
    throw new RangeError(
      `${what} has ${tensor.elements} elements, ${count} from ${first} on are not inside of it: ask for whole ` +
        "numbers within",
    );
  }
}

/** Elements of a chunk: an even number, so that chunks of f16 are whole 4-byte words for the GPU. */
function chunkElements(chunkBytes: number, width: number): number {
  const elements = Math.floor(chunkBytes / width / 2) * 2;
  if (!(elements >= 2 && Number.isSafeInteger(elements))) {
    throw new RangeError(
      `Cannot read in chunks of ${chunkBytes} bytes: give at least ${2 * width} for chunkBytes`,
    );
  }
  return elements;
}
