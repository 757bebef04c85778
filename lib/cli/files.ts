// Files that the user names: found from where the user stands, with errors that say what to do.

import { resolve } from "@std/path";
import type { Io } from "./io.ts";
import { required } from "./parse.ts";
import type { Values } from "./flags.ts";

/** A path as the user means it. */
export function userPath(io: Io, path: string): string {
  return resolve(io.directory, path);
}

/** Why a file cannot be read, and what to do. */
function reason(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "there is none: check the path";
  if (error instanceof Deno.errors.IsADirectory) return "it is a folder: name a file in it";
  if (error instanceof Deno.errors.PermissionDenied) return "this user may not: allow reading it";
  return error instanceof Error ? error.message : String(error);
}

/**
 * Text of UTF-8 bytes.
 *
 * @throws {TypeError} when they are something else; the message names where they come from.
 */
export function decodeText(bytes: Uint8Array, from: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new TypeError(`${from} is not UTF-8: convert it, or pass token ids with --prompt-ids`, { cause });
  }
}

/** The text of a file that a flag names. */
export async function readUserFile(io: Io, path: string, what: string): Promise<string> {
  const resolved = userPath(io, path);
  let bytes: Uint8Array;
  try {
    bytes = await Deno.readFile(resolved);
  } catch (cause) {
    throw new Error(`Cannot read the ${what} ${resolved}: ${reason(cause)}`, { cause });
  }
  return decodeText(bytes, resolved);
}

/** The model's folder; whether it holds one is seen when it is read. */
export async function modelDirectory(io: Io, values: Values): Promise<string> {
  const directory = userPath(io, required(values, "model"));
  let isDirectory: boolean;
  try {
    ({ isDirectory } = await Deno.stat(directory));
  } catch (cause) {
    throw new Error(`Cannot open the model folder ${directory}: ${reason(cause)}`, { cause });
  }
  if (!isDirectory) throw new Error(`${directory} is a file: name the folder that it is in with --model`);
  return directory;
}
