// Things with options as text, for command lines: `name:option=value,switch`.

import { nearestName } from "./nearest_name.ts";

/** What an option takes: a real number, a whole one, true or false, one of some words, or text that is read elsewhere. */
export type OptionType = "number" | "whole" | "boolean" | "text" | readonly string[];

/** A name and its options as they were written. */
export interface NamedOptions {
  /** The name. */
  readonly name: string;
  /** By their names in code. */
  readonly options: Record<string, unknown>;
}

/** `sameLayer` as `same-layer`. */
function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** What a value of a type may be, in words. */
function expected(type: OptionType): string {
  if (typeof type !== "string") return `one of ${type.join(", ")}`;
  return { number: "a number", whole: "a whole number", boolean: "true or false", text: "a text" }[type];
}

/** What a value says, or undefined when it is nothing of its type. Whether a number is in its range is seen by who takes it. */
function valueOf(text: string | undefined, type: OptionType): unknown {
  if (type === "boolean") {
    return text === undefined || text === "true" ? true : text === "false" ? false : undefined;
  }
  if (text === undefined || text === "") return undefined;
  if (type === "text") return text;
  if (typeof type !== "string") return type.find((word) => word === text);
  const number = Number(text);
  return Number.isFinite(number) ? number : undefined;
}

function unknown(what: string, word: string, names: readonly string[], listed: string): never {
  const nearest = nearestName(word, names);
  const meant = nearest ? `: did you mean ${nearest}? ${listed}` : `: ${listed}`;
  throw new RangeError(`There is no ${what} ${JSON.stringify(word)}${meant}`);
}

/**
 * Reads a name with its options in kebab case, of which those that are true or false need no value. `what` says what the
 * names are of, in the singular and the plural. With `lenient`, a value of another type stays text: whoever takes it names the
 * range.
 *
 * @throws {RangeError} a name or option that does not exist, with those that do, one that is given twice, or a value of another
 * type.
 */
export function parseNamedOptions(
  text: string,
  what: readonly [singular: string, plural: string],
  entries: Readonly<Record<string, { readonly options: Readonly<Record<string, OptionType>> }>>,
  lenient = false,
): NamedOptions {
  const colon = text.indexOf(":");
  const name = (colon < 0 ? text : text.slice(0, colon)).trim();
  const names = Object.keys(entries);
  if (!Object.hasOwn(entries, name)) {
    unknown(what[0], name, names, `The ${what[1]} are ${names.join(", ")}`);
  }
  const entry = entries[name];
  const known = new Map(Object.keys(entry.options).map((option) => [kebabCase(option), option]));
  const options: Record<string, unknown> = {};
  const parts = colon < 0 ? [] : text.slice(colon + 1).split(",");
  for (const part of parts) {
    const equals = part.indexOf("=");
    const word = (equals < 0 ? part : part.slice(0, equals)).trim();
    const option = known.get(word);
    if (option === undefined) {
      unknown(
        `option of ${name}`,
        word,
        [...known.keys()],
        `Its options are ${[...known.keys()].join(", ")}`,
      );
    }
    if (Object.hasOwn(options, option)) throw new RangeError(`${name} is given ${word} twice: leave one out`);
    const written = equals < 0 ? undefined : part.slice(equals + 1).trim();
    const type = entry.options[option];
    const value = valueOf(written, type) ?? (lenient ? written ?? "nothing" : undefined);
    if (value === undefined) {
      const received = written === undefined ? "no value" : JSON.stringify(written);
      throw new RangeError(`${word} must be ${expected(type)}: received ${received}`);
    }
    options[option] = value;
  }
  return { name, options };
}
