// Arguments to values, strictly: what is not understood is an error, never ignored.

import { parseArgs } from "@std/cli";
import { nearestName } from "../../mod.ts";
import { WrongCall } from "./errors.ts";
import { FLAG_NAMES, type FlagName, flagOf, isFlagName, type Values } from "./flags.ts";

/** What is said of a flag that the command does not have. */
function unknownFlag(command: string, argument: string, names: readonly FlagName[]): WrongCall {
  const name = argument.replace(/^--?/, "").replace(/=.*$/s, "");
  if (isFlagName(name) && argument.startsWith("--")) {
    return new WrongCall(`cairn ${command} has no --${name}: cairn ${command} --help lists what it has`);
  }
  const similar = nearestName(name, names);
  return new WrongCall(
    `There is no ${argument.replace(/=.*$/s, "")}: ` +
      (similar ? `did you mean --${similar}?` : `cairn ${command} --help lists the flags`),
  );
}

function strayArgument(argument: string): WrongCall {
  return new WrongCall(
    `${JSON.stringify(argument)} belongs to no flag: a text of several words goes in quotes after its flag`,
  );
}

/**
 * Joins each value to its flag with an equal sign, so that a value may begin with a hyphen.
 *
 * @throws {WrongCall} when a value is missing, or given to a switch.
 */
function joinValues(args: readonly string[], names: readonly FlagName[]): string[] {
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [, name, equals, value] = /^--([^=]+)(=?)(.*)$/s.exec(args[i]) ?? [];
    if (name === undefined || !isFlagName(name) || !names.includes(name)) {
      joined.push(args[i]);
      continue;
    }
    const wants = flagOf(name).value;
    if (wants === undefined) {
      if (equals) throw new WrongCall(`--${name} takes no value: write --${name} alone`);
      joined.push(args[i]);
      continue;
    }
    const next = equals ? value : args[++i];
    if (next === undefined || next === "") {
      throw new WrongCall(`--${name} needs a value: write --${name} ${wants}`);
    }
    if (!equals && next.startsWith("--")) {
      throw new WrongCall(`--${name} needs a value before ${next}: a value with -- goes --${name}=${next}`);
    }
    joined.push(`--${name}=${next}`);
  }
  return joined;
}

/**
 * Reads a command's flags. With `--help` among them nothing is checked.
 *
 * @throws {WrongCall} when a flag is unknown, given twice, or its value missing or malformed.
 */
export function parseFlags(command: string, args: readonly string[], names: readonly FlagName[]): Values {
  if (args.some((arg) => arg === "--help" || arg === "-h")) return { help: true };
  const wrong: WrongCall[] = [];
  const switches = names.filter((name) => flagOf(name).value === undefined);
  const rest = names.filter((name) => flagOf(name).value !== undefined);
  const parsed: Record<string, unknown> = parseArgs(joinValues(args, names), {
    boolean: switches,
    string: rest,
    // Lists, so that what is given twice is seen.
    collect: names,
    unknown: (argument: string, key?: string): boolean => {
      wrong.push(
        key === undefined ? strayArgument(argument) : unknownFlag(command, argument, names),
      );
      return false;
    },
  });
  // What follows a -- is in no flag either.
  for (const argument of parsed._ as unknown[]) wrong.push(strayArgument(String(argument)));
  if (wrong.length) throw wrong[0];
  const values: Record<string, unknown> = {};
  for (const name of FLAG_NAMES.filter((each) => names.includes(each))) {
    const given = parsed[name] as readonly string[];
    if (given.length === 0) continue;
    const flag = flagOf(name);
    if (given.length > 1 && !flag.repeatable) {
      throw new WrongCall(`--${name} is given ${given.length} times: give it once`);
    }
    values[name] = flag.read(name, given);
  }
  return values as Values;
}

/**
 * The value of a flag that must be given.
 *
 * @throws {WrongCall} when it is not.
 */
export function required<Name extends FlagName>(values: Values, name: Name): NonNullable<Values[Name]> {
  const value = values[name];
  if (value !== undefined) return value as NonNullable<Values[Name]>;
  throw new WrongCall(`--${name} is missing: add --${name} ${flagOf(name).value}`);
}
