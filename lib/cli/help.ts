// Help: of all commands, and of one with its flags.

import { columns, WIDTH } from "./columns.ts";
import type { Command } from "./command.ts";
import { FLAG_NAMES, type FlagName, flagOf } from "./flags.ts";

const TASK = "deno task cairn";

/** A call, broken before a flag where it would be too wide, as a shell takes it. */
function wrapped(call: string): string {
  const lines = [`  ${TASK}`];
  for (const part of call.split(/ (?=--)/)) {
    const longer = `${lines.at(-1)} ${part}`;
    if (longer.length <= WIDTH - 2) lines[lines.length - 1] = longer;
    else lines.push(`    ${part}`);
  }
  return lines.join(" \\\n");
}

function examples(list: Command["examples"]): string {
  return list.map(([call, purpose]) => `  # ${purpose}\n${wrapped(call)}\n`).join("\n");
}

/** Help of the whole command line. */
export function overview(commands: readonly Command[]): string {
  const rows = [
    ...commands.map(({ name, summary }) => [name, summary]),
    ["help", "This text; help COMMAND tells a command's flags"],
    ["help linear", "The cores of linear attention that --linear takes"],
    ["help prune", "The policies of KV-cache pruning that --prune takes"],
  ];
  return `Cairn runs language models on the GPU.

Usage: ${TASK} COMMAND [FLAGS]

Commands
${columns(rows, { indent: "  " })}
Flags
${columns([["--help", "Help of a command"], ["--version", "Version of Cairn"]], { indent: "  " })}
Examples
${examples(commands.map((command) => command.examples[0]).slice(0, 3))}`;
}

/** Flags of a command, by heading. */
function flagGroups(names: readonly FlagName[]): string {
  const width = Math.max(...names.map((name) => `--${name} ${flagOf(name).value ?? ""}`.length));
  const groups = Map.groupBy(FLAG_NAMES.filter((name) => names.includes(name)), (name) => flagOf(name).group);
  return [...groups].map(([group, members]) => {
    const rows = members.map((name) => {
      const { value, help } = flagOf(name);
      return [`--${name}${value === undefined ? "" : ` ${value}`}`.padEnd(width), help];
    });
    return `${group}\n${columns(rows, { indent: "  " })}`;
  }).join("\n");
}

/** Help of one command. */
export function commandHelp(command: Command, flags: readonly FlagName[]): string {
  const notes = command.notes ? `${command.notes.join("\n")}\n\n` : "";
  return `${command.summary}

Usage: ${TASK} ${command.name} [FLAGS]

${notes}${flagGroups(flags)}
Examples
${examples(command.examples)}`;
}
