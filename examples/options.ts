// Options of the examples that have some: all are texts with a default, and mistakes end the script with one line.

import { parseArgs } from "@std/cli";

/** Ends the script with a sentence. */
export function fail(message: string): never {
  console.error(message);
  Deno.exit(1);
}

/** Reads `--name value` for the names that have a default; `--help` prints `usage`. */
export function readOptions<Name extends string>(
  usage: string,
  defaults: Readonly<Record<Name, string>>,
): Record<Name, string> {
  const names = Object.keys(defaults) as Name[];
  const args = parseArgs(Deno.args, {
    string: names as string[],
    boolean: ["help"],
    unknown(argument) {
      fail(`There is no option ${argument}: the options are ${names.map((name) => `--${name}`).join(", ")}`);
    },
  }) as Record<string, unknown>;
  if (args.help) {
    console.log(usage);
    Deno.exit(0);
  }
  return Object.fromEntries(names.map((name) => {
    const value = args[name] ?? defaults[name];
    if (Array.isArray(value)) fail(`--${name} is given twice: leave one out`);
    if (value === "" && args[name] !== undefined) fail(`--${name} needs a value`);
    return [name, value];
  })) as Record<Name, string>;
}

/** Numbers between commas, each in a range. */
export function numbers(name: string, text: string, low: number, high: number, whole = false): number[] {
  return text.split(",").map((part) => {
    const value = part.trim() === "" ? NaN : Number(part);
    if (value >= low && value <= high && (!whole || Number.isInteger(value))) return value;
    const limit = high === Infinity ? `from ${low}` : `from ${low} to ${high}`;
    return fail(`--${name} takes ${whole ? "whole " : ""}numbers ${limit}: received ${JSON.stringify(part)}`);
  });
}

/** One whole number in a range. */
export function whole(name: string, text: string, low: number, high = Infinity): number {
  const values = numbers(name, text, low, high, true);
  return values.length === 1 ? values[0] : fail(`--${name} takes one number: received ${text}`);
}

/** A text file, or a sentence on what is wrong with it. */
export function readText(name: string, path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    return fail(`--${name} ${path} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

/** Writes a file of a folder that is made where it is missing, and tells so on standard error. */
export function writeText(folder: string, name: string, text: string): void {
  try {
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeTextFileSync(`${folder}/${name}`, text);
  } catch (error) {
    fail(`--out ${folder} cannot be written to: ${error instanceof Error ? error.message : error}`);
  }
  console.error(`wrote ${folder}/${name}`);
}

/** At most `most` of a list, evenly over its length. */
export function evenly<T>(list: readonly T[], most: number): T[] {
  if (list.length <= most) return [...list];
  return Array.from({ length: most }, (_, i) => list[Math.floor((i + 0.5) * list.length / most)]);
}
