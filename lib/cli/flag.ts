// Flags as values: how each reads what was written, and what help says of it.

import { WrongCall } from "./errors.ts";

/** A flag. */
export interface Flag<T> {
  /** Heading it stands under in help. */
  readonly group: string;
  /** Stands for its value in help; a switch has none. */
  readonly value?: string;
  /** What it does, and its default. */
  readonly help: string;
  /** Whether it may be given several times. */
  readonly repeatable?: boolean;
  /** Reads its values, at least one and none of them empty; a switch gets none. */
  read(name: string, texts: readonly string[]): T;
}

function fail(name: string, expected: string, text: string): never {
  throw new WrongCall(`--${name} takes ${expected}: received ${JSON.stringify(text)}`);
}

/** Reads one value. */
export type ReadValue<T> = (name: string, text: string) => T;

/** A flag with one value. */
export function valued<T>(group: string, value: string, read: ReadValue<T>, help: string): Flag<T> {
  return { group, value, help, read: (name, [text]) => read(name, text) };
}

/** A flag that may be given several times. */
export function repeated<T>(group: string, value: string, read: ReadValue<T>, help: string): Flag<T[]> {
  return {
    group,
    value,
    help,
    repeatable: true,
    read: (name, texts) => texts.map((text) => read(name, text)),
  };
}

/** A flag that is given or not. */
export function toggle(group: string, help: string): Flag<true> {
  return { group, help, read: () => true };
}

/** Any text. */
export const text: ReadValue<string> = (_, value) => value;

const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** A number in decimal notation. */
export const number: ReadValue<number> = (name, value) =>
  DECIMAL.test(value) && Number.isFinite(Number(value)) ? Number(value) : fail(name, "a number", value);

/** A whole number. */
export const whole: ReadValue<number> = (name, value) =>
  /^[+-]?\d+$/.test(value) && Number.isSafeInteger(Number(value))
    ? Number(value)
    : fail(name, "a whole number", value);

/** One of some words. */
export function oneOf<T extends string>(...words: readonly T[]): ReadValue<T> {
  return (name, value) => words.find((word) => word === value) ?? fail(name, words.join(" or "), value);
}

/** Whole numbers from 0, as `1,2,3`. */
export const ids: ReadValue<number[]> = (name, value) =>
  value.split(",").map((part) => {
    const id = part.trim();
    if (!/^\d+$/.test(id) || !Number.isSafeInteger(Number(id))) {
      fail(name, "token ids such as 1,2,3", value);
    }
    return Number(id);
  });

/** Numbers by token id, as `ID=VALUE,…`; `-inf` forbids a token. */
export const bias: ReadValue<Record<number, number>> = (name, value) => {
  const byId: Record<number, number> = {};
  for (const part of value.split(",")) {
    const [id, amount, ...rest] = part.split("=").map((side) => side.trim());
    const forbids = /^-inf(inity)?$/i.test(amount ?? "");
    if (!/^\d+$/.test(id) || rest.length > 0 || !(forbids || DECIMAL.test(amount ?? ""))) {
      fail(name, "ID=VALUE,… such as 5=-10,7=2.5", value);
    }
    if (Object.hasOwn(byId, Number(id))) {
      throw new WrongCall(`--${name} gives token ${Number(id)} two values: keep one`);
    }
    byId[Number(id)] = forbids ? -Infinity : Number(amount);
  }
  return byId;
};

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes, as `512MiB`, `2GB` or a plain number. */
export const size: ReadValue<number> = (name, value) => {
  const [, amount, unit] = /^(\d+\.?\d*|\.\d+)\s*([a-z]*)$/i.exec(value.trim()) ?? [];
  const factor = amount === undefined ? undefined : UNITS[unit.toLowerCase()];
  const bytes = Math.floor(Number(amount) * (factor ?? NaN));
  return Number.isSafeInteger(bytes) && bytes > 0
    ? bytes
    : fail(name, "a size such as 512MiB, 2GB or 800000000", value);
};
