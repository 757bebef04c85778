// Options of named things, such as policies and cores, as help writes them.

import type { OptionType } from "../../mod.ts";
import { WIDTH } from "./columns.ts";
import { kebab } from "./told.ts";

/** What stands for the values of options that would be too long to write out, or are texts. */
export type Placeholders = Readonly<Record<string, string>>;

/** An option as it is written: `keep=X`, `norm=rms|layer`, `same-layer`. */
function written(name: string, type: OptionType, placeholders: Placeholders): string {
  if (type === "boolean") return kebab(name);
  const value = typeof type === "string" ? { number: "X", whole: "N", text: "TEXT" }[type] : type.join("|");
  return `${kebab(name)}=${placeholders[name] ?? value}`;
}

/** Lines of words that are joined by commas. */
export function wrapped(words: readonly string[], indent: string): string {
  const lines: string[] = [];
  for (const [i, word] of words.entries()) {
    const last = lines.at(-1);
    const next = i < words.length - 1 ? `${word},` : word;
    if (last === undefined || last.length + 1 + next.length > WIDTH) lines.push(indent + next);
    else lines[lines.length - 1] = `${last} ${next}`;
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** A paragraph for each entry: its name, what it does, and its options. */
export function entriesHelp(
  entries: Readonly<
    Record<string, { readonly summary: string; readonly options: Readonly<Record<string, OptionType>> }>
  >,
  placeholders: Placeholders = {},
): string {
  return Object.entries(entries).map(([name, { summary, options }]) => {
    const words = Object.entries(options).map(([option, type]) => written(option, type, placeholders));
    return `  ${name}\n    ${summary}\n${wrapped(words, "    ")}`;
  }).join("\n");
}
