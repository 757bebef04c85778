/**
 * A stand-in for `jsr:@std/cli`, so that the project also runs where the JSR registry cannot be reached.
 *
 * It offers what the project uses, under the names, signatures and rules of the real package; `links` in the root
 * `deno.json` puts it in that package's place.
 *
 * @module
 */

export { type Args, parseArgs, type ParseOptions } from "./parse_args.ts";
