/**
 * `parseArgs` of `@std/cli`: the command line as an object.
 *
 * `node:util` has a function of that name with other rules (no numbers, no `_`, unknown options refused), so this one
 * is written out here.
 *
 * @module
 */

import type { Args, ParseOptions, Values } from "./types.ts";

export type { Args, ParseOptions } from "./types.ts";

type Value = string | number | boolean;
type Nested = Record<string, unknown>;
type Unknown = NonNullable<ParseOptions["unknown"]>;

/** `--name`, `--no-name`, `--name=value`; an empty value makes the equal sign a part of the name. */
const LONG = /^--(?<no>no-)?(?<name>.+?)(?:=(?<value>.+))?$/s;

/** The names that options were declared with, each with its aliases. */
class Declared {
  readonly aliases: Map<string, Set<string>> = new Map();
  readonly boolean: Set<string>;
  readonly string: Set<string>;
  readonly collect: Set<string>;
  readonly negatable: Set<string>;
  /** Every long option without an equal sign is a boolean. */
  readonly allBoolean: boolean;

  constructor(options: ParseOptions) {
    for (const [name, value] of Object.entries(options.alias ?? {})) {
      if (value === undefined) throw new TypeError("Alias value must be defined");
      const group = [name, ...[value].flat()];
      for (const member of group) this.aliases.set(member, new Set(group.filter((it) => it !== member)));
    }
    this.allBoolean = options.boolean === true;
    this.boolean = this.#names(typeof options.boolean === "boolean" ? undefined : options.boolean);
    this.string = this.#names(options.string);
    this.collect = this.#names(options.collect);
    this.negatable = this.#names(options.negatable);
  }

  #names(given: string | readonly string[] | undefined): Set<string> {
    const names = [given ?? []].flat().filter(Boolean);
    return new Set(names.flatMap((name) => [name, ...this.aliases.get(name) ?? []]));
  }

  /** Without a value an option is on, or an empty text where a text is wanted. */
  bare(name: string): Value {
    return this.string.has(name) ? "" : true;
  }
}

function isNumber(text: string): boolean {
  return /\S/.test(text) && Number.isFinite(Number(text));
}

function isBoolean(text: string | undefined): text is "true" | "false" {
  return text === "true" || text === "false";
}

/** A dot in a name makes an object: `--a.b 1` gives `{ a: { b: 1 } }`. */
function holderOf(result: Nested, path: string[]): Nested {
  return path.slice(0, -1).reduce((holder, part) => (holder[part] ??= {}) as Nested, result);
}

function put(result: Nested, name: string, value: unknown, collect: boolean): void {
  const path = name.split(".");
  const holder = holderOf(result, path);
  const last = path[path.length - 1];
  if (!collect) {
    holder[last] = value;
  } else if (Array.isArray(holder[last])) {
    holder[last].push(value);
  } else {
    holder[last] = holder[last] ? [holder[last], value] : [value];
  }
}

function has(result: Nested, name: string): boolean {
  let holder: unknown = result;
  for (const part of name.split(".")) {
    if (holder === null || holder === undefined || !Object.hasOwn(holder, part)) return false;
    holder = (holder as Nested)[part];
  }
  return true;
}

/** Reads one argument list into one result. */
class Reader {
  readonly result: Nested & { _: (string | number)[] } = { _: [] };
  readonly #declared: Declared;
  readonly #unknown: Unknown | undefined;

  constructor(declared: Declared, unknown: Unknown | undefined) {
    this.#declared = declared;
    this.#unknown = unknown;
  }

  set(name: string, given: Value, argument: string, collect = true): void {
    const { aliases, boolean, string, allBoolean } = this.#declared;
    const known = boolean.has(name) || string.has(name) || aliases.has(name) ||
      (allBoolean && /^--[^=]+$/.test(argument));
    if (!known && this.#unknown?.(argument, name, given) === false) return;
    const value = typeof given === "string" && !string.has(name) && isNumber(given) ? Number(given) : given;
    const many = collect && this.#declared.collect.has(name);
    for (const each of [name, ...aliases.get(name) ?? []]) put(this.result, each, value, many);
  }

  /** @returns How many arguments were read: one, or two with the value that follows. */
  long(argument: string, next: string | undefined): number {
    const { no, name, value } = LONG.exec(argument)!.groups as Record<string, string | undefined>;
    const { boolean, negatable, allBoolean } = this.#declared;
    if (value) {
      this.set(name!, boolean.has(name!) ? value !== "false" : value, argument);
      return 1;
    }
    if (no && negatable.has(name!)) {
      this.set(name!, false, argument, false);
      return 1;
    }
    const full = `${no ?? ""}${name}`;
    const takes = !boolean.has(full) && !allBoolean && !next?.startsWith("-");
    return this.#withNext(full, takes, argument, next);
  }

  /** `-v`, `-n5`, `-n=5`, `-abc`: all but the last letter are options of their own unless a value follows them. */
  short(argument: string, next: string | undefined): number {
    const letters = argument.slice(1, -1).split("");
    for (const [i, letter] of letters.entries()) {
      const rest = argument.slice(i + 2);
      if (rest === "-") {
        this.set(letter, rest, argument);
        continue;
      }
      const attached = this.#attached(letter, letters[i + 1], rest);
      if (attached !== undefined) {
        this.set(letter, attached, argument);
        return 1;
      }
      this.set(letter, this.#declared.bare(letter), argument);
    }
    const last = argument.slice(-1);
    if (last === "-") return 1;
    const takes = !this.#declared.boolean.has(last) && !/^--?[^-]/.test(next ?? "");
    return this.#withNext(last, takes, argument, next);
  }

  #attached(letter: string, after: string | undefined, rest: string): string | undefined {
    if (/[A-Za-z]/.test(letter)) {
      const value = /=(?<value>.+)/.exec(rest)?.groups?.value;
      if (value !== undefined) return value;
      if (/-?\d+(\.\d*)?(e-?\d+)?$/.test(rest)) return rest;
    }
    return after !== undefined && /\W/.test(after) ? rest : undefined;
  }

  #withNext(name: string, takes: boolean, argument: string, next: string | undefined): number {
    if (next && takes) {
      this.set(name, next, argument);
      return 2;
    }
    if (isBoolean(next)) {
      this.set(name, next === "true", argument);
      return 2;
    }
    this.set(name, this.#declared.bare(name), argument);
    return 1;
  }

  positional(argument: string): void {
    if (this.#unknown?.(argument) === false) return;
    const text = this.#declared.string.has("_") || !isNumber(argument);
    this.result._.push(text ? argument : Number(argument));
  }

  /** What was not given: defaults first, then `false` for booleans and `[]` for collected options. */
  fill(defaults: Nested): void {
    const { aliases, boolean, string, collect } = this.#declared;
    for (const [name, value] of Object.entries(defaults)) {
      if (has(this.result, name)) continue;
      for (const each of [name, ...aliases.get(name) ?? []]) put(this.result, each, value, false);
    }
    for (const name of boolean) {
      if (!has(this.result, name)) put(this.result, name, collect.has(name) ? [] : false, false);
    }
    for (const name of string) {
      if (!has(this.result, name) && collect.has(name)) put(this.result, name, [], false);
    }
  }
}

/**
 * Reads command line arguments.
 *
 * Numbers become numbers unless their option is a `string` one; an option that is not `boolean` takes the next argument
 * as its value unless that starts with a hyphen (write `--seed=-1`); what belongs to no option is in `_`, and so is all
 * that follows a `--`, unless the option `--` asks for it apart.
 *
 * @param args The arguments, as in `Deno.args`.
 * @param options What is known of the options.
 * @returns The options by name, and `_`.
 * @throws {TypeError} When an alias is undefined.
 */
export function parseArgs<
  TBooleans extends boolean | string | undefined = undefined,
  TStrings extends string | undefined = undefined,
  TCollectable extends string | undefined = undefined,
  TNegatable extends string | undefined = undefined,
  TDefaults extends Record<string, unknown> | undefined = undefined,
  TDoubleDash extends boolean | undefined = undefined,
>(
  args: string[],
  options: ParseOptions<TBooleans, TStrings, TCollectable, TNegatable, TDefaults, TDoubleDash> = {},
): Args<Values<TBooleans, TStrings, TCollectable, TNegatable, TDefaults>, TDoubleDash> {
  const given = options as ParseOptions;
  const end = args.indexOf("--");
  const read = end === -1 ? args : args.slice(0, end);
  const rest = end === -1 ? [] : args.slice(end + 1);

  const reader = new Reader(new Declared(given), given.unknown);
  for (let i = 0; i < read.length;) {
    const argument = read[i];
    if (/^--./s.test(argument)) {
      i += reader.long(argument, read[i + 1]);
    } else if (/^-./s.test(argument)) {
      i += reader.short(argument, read[i + 1]);
    } else {
      reader.positional(argument);
      i += 1;
      if (given.stopEarly) {
        reader.result._.push(...read.slice(i));
        break;
      }
    }
  }
  reader.fill(given.default ?? {});

  const { result } = reader;
  if (given["--"]) result["--"] = rest;
  else result._.push(...rest);
  return result as Args<Values<TBooleans, TStrings, TCollectable, TNegatable, TDefaults>, TDoubleDash>;
}
