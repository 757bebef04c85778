/**
 * A stand-in for `jsr:@std/path`, so that the project also runs where the JSR registry cannot be reached.
 *
 * It offers what the project uses, under the names and rules of the real package; `links` in the root `deno.json` puts
 * it in that package's place. Paths are those of the system it runs on.
 *
 * @module
 */

import { isAbsolute, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export { basename, dirname, extname, isAbsolute, join, normalize, relative, resolve } from "node:path";

/** The sign between the parts of a path. */
export const SEPARATOR: "/" | "\\" = sep;

/**
 * The path that a `file:` URL names.
 *
 * @param url The URL, such as `import.meta.url`.
 * @returns An absolute path, percent signs decoded.
 * @throws {TypeError} When it is no `file:` URL, or no URL at all.
 */
export function fromFileUrl(url: string | URL): string {
  const parsed = new URL(url);
  if (parsed.protocol !== "file:") {
    throw new TypeError(`URL must be a file URL: received "${parsed.protocol}"`);
  }
  return fileURLToPath(parsed);
}

/**
 * The `file:` URL of a path.
 *
 * @param path An absolute path.
 * @returns Its URL, with spaces and other special signs encoded.
 * @throws {TypeError} When the path is relative.
 */
export function toFileUrl(path: string): URL {
  if (!isAbsolute(path)) throw new TypeError(`Path must be absolute: received "${path}"`);
  // The last separator says that a folder is meant; resolving drops it, and the URL keeps it as written.
  const url = pathToFileURL(resolve(path));
  if (/[\\/]$/.test(path) && !url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}
