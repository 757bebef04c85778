/**
 * The command line of Cairn: `generate`, `chat`, `score`, `info`, `plan`.
 *
 * ```sh
 * deno task cairn generate --model examples/models/novel-llama --prompt "The rain had not stopped for"
 * ```
 *
 * The text, or one JSON object, goes to stdout, everything else to stderr. Exit codes: 0, 1 for a failure, 2 for a wrong
 * call, 130 for Ctrl-C.
 *
 * @module
 */

import { nearestName } from "../../mod.ts";
import { chat } from "./commands/chat.ts";
import { generate } from "./commands/generate.ts";
import { info } from "./commands/info.ts";
import { plan } from "./commands/plan.ts";
import { score } from "./commands/score.ts";
import { type Command, print } from "./command.ts";
import { EXIT, exitCode, inFlags, WrongCall } from "./errors.ts";
import { FLAG_NAMES, type FlagName } from "./flags.ts";
import { commandHelp, overview } from "./help.ts";
import { type Io, processIo } from "./io.ts";
import { linearHelp } from "./linear_help.ts";
import { parseFlags } from "./parse.ts";
import { pruneHelp } from "./prune_help.ts";
import { VERSION } from "./version.ts";

export type { GraphicsCard } from "./graphics_card.ts";
export type { Input, Io, Notes, Output } from "./io.ts";

const COMMANDS: readonly Command[] = [generate, chat, score, info, plan];

/** Help of what a flag takes, by the flag. */
const TOPICS: Readonly<Record<string, () => string>> = { linear: linearHelp, prune: pruneHelp };

function find(name: string, others: readonly string[]): Command {
  const command = COMMANDS.find((each) => each.name === name);
  if (command) return command;
  const similar = nearestName(name, [...COMMANDS.map((each) => each.name), ...others]);
  throw new WrongCall(
    `There is no command ${JSON.stringify(name)}: ` +
      (similar ? `did you mean ${similar}?` : "cairn help lists the commands"),
  );
}

function flagsOf(command: Command): FlagName[] {
  return [...command.flags, "debug", "help"];
}

function helpOf(topic: string | undefined): string {
  if (topic === undefined || topic === "help") return overview(COMMANDS);
  if (Object.hasOwn(TOPICS, topic)) return TOPICS[topic]();
  const command = find(topic, Object.keys(TOPICS));
  return commandHelp(command, flagsOf(command));
}

async function run(args: readonly string[], io: Io): Promise<number> {
  const [first, ...rest] = args;
  if (first === undefined) {
    io.stderr.write(overview(COMMANDS));
    return EXIT.wrongCall;
  }
  if (first === "--version") {
    await print(io, `cairn ${VERSION}\n`);
    return EXIT.ok;
  }
  if (["help", "--help", "-h"].includes(first)) {
    const topic = rest.find((arg) => !arg.startsWith("-"));
    await print(io, helpOf(topic));
    return EXIT.ok;
  }
  if (first.startsWith("-")) {
    throw new WrongCall(`The command comes before ${first}: cairn help lists the commands`);
  }
  const command = find(first, ["help"]);
  const values = parseFlags(command.name, rest, flagsOf(command));
  if (values.help) {
    await print(io, commandHelp(command, flagsOf(command)));
    return EXIT.ok;
  }
  return await command.run(io, values);
}

/**
 * Runs the command line.
 *
 * @param args The arguments, as in `Deno.args`.
 * @param io Streams, folder and Ctrl-C. Default: those of this process.
 * @returns The exit code. Errors are told on stderr, never thrown.
 */
export async function main(args: readonly string[], io: Io = processIo()): Promise<number> {
  try {
    return await run(args, io);
  } catch (error) {
    const code = exitCode(error);
    if (code === EXIT.failure || code === EXIT.wrongCall) {
      const message = error instanceof Error ? error.message : String(error);
      io.stderr.write(`cairn: ${inFlags(message, FLAG_NAMES)}\n`);
      if (args.includes("--debug") && error instanceof Error) io.stderr.write(`${Deno.inspect(error)}\n`);
    }
    // The shell's prompt is not to stand behind ^C.
    if (code === EXIT.interrupted && io.stderr.isTerminal) io.stderr.write("\n");
    return code;
  }
}

if (import.meta.main) {
  // Without a folder there, GPU start-up on a machine without a desktop prints a complaint that means nothing.
  if (Deno.build.os === "linux" && !Deno.env.get("XDG_RUNTIME_DIR")) {
    Deno.env.set("XDG_RUNTIME_DIR", Deno.env.get("TMPDIR") || "/tmp");
  }
  Deno.exit(await main(Deno.args));
}
