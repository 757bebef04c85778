// A session as bytes: its tokens, and what its cache keeps, so that it goes on in another process.
//
//   "cairn session 1\n" | length of the header, u32 | header, JSON | content of the cache's buffers, one after the other

import type { Turn } from "../graph/mod.ts";
import { coresOf } from "../layers/mod.ts";
import type { Model } from "../models/mod.ts";

/** What a session is, beside the content of its cache. */
export interface SavedSession {
  /** What the model must be like. */
  readonly model: string;
  /** All tokens. */
  readonly ids: readonly number[];
  /** How many of them are in the cache. */
  readonly cached: number;
  /** How many were there when the last generation ended. */
  readonly answered: number;
  /** What the cache was made for; none when nothing is cached. */
  readonly cache?: { readonly turns: readonly Turn[]; readonly batchInvariant: boolean };
  /** The cache's buffers with their bytes, in order. */
  readonly buffers: readonly (readonly [name: string, bytes: number])[];
}

const MAGIC = new TextEncoder().encode("cairn session 1\n");

/** What must be the same in the model that goes on: sizes, attention, and how its cache is pruned. */
export function modelMark(model: Model): string {
  const { config, dtype, pruning } = model;
  const { modelType, vocabularySize, hiddenSize } = config;
  const cores = coresOf(model).map(({ kind, settings = {} }) => [kind, settings]);
  return JSON.stringify([
    modelType,
    vocabularySize,
    hiddenSize,
    dtype,
    cores,
    pruning?.policy,
    pruning?.options,
  ]);
}

/** Puts a session into bytes. */
export function packSession(session: SavedSession, contents: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const header = new TextEncoder().encode(JSON.stringify(session));
  const sizes = [MAGIC.length, 4, header.length, ...contents.map(({ length }) => length)];
  const bytes = new Uint8Array(sizes.reduce((a, b) => a + b, 0));
  bytes.set(MAGIC);
  new DataView(bytes.buffer).setUint32(MAGIC.length, header.length, true);
  let at = MAGIC.length + 4;
  for (const part of [header, ...contents]) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Whether a parsed header is one. */
function isSession(value: unknown): value is SavedSession {
  const { model, ids, cached, answered, buffers } = (value ?? {}) as Partial<SavedSession>;
  const count = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
  return typeof model === "string" && Array.isArray(ids) && ids.every(count) && count(cached) &&
    count(answered) &&
    cached! <= ids.length && answered! <= ids.length && Array.isArray(buffers) &&
    buffers.every((entry) => Array.isArray(entry) && typeof entry[0] === "string" && count(entry[1]));
}

/**
 * Takes a session out of bytes.
 *
 * @throws {TypeError} when they are no saved session, or a damaged one.
 */
export function unpackSession(
  bytes: Uint8Array,
): { session: SavedSession; contents: ReadonlyMap<string, Uint8Array> } {
  const fail = (why: string): never => {
    throw new TypeError(`These bytes are no saved session: ${why}`);
  };
  const start = MAGIC.length + 4;
  if (bytes.length < start || !MAGIC.every((byte, i) => bytes[i] === byte)) {
    return fail("they begin otherwise");
  }
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(MAGIC.length, true);
  let session: unknown;
  try {
    session = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(start, start + length)),
    );
  } catch {
    return fail("the header is damaged");
  }
  if (!isSession(session)) return fail("the header is damaged");
  const contents = new Map<string, Uint8Array>();
  let at = start + length;
  for (const [name, size] of session.buffers) {
    contents.set(name, bytes.subarray(at, at + size));
    at += size;
  }
  if (at !== bytes.length) {
    return fail(`they should be ${at} bytes and are ${bytes.length}, as after an interrupted copy`);
  }
  return { session, contents };
}
