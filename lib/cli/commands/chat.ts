// cairn chat: a conversation, line by line.

import {
  type GenerateOptions,
  type GenerateRecord,
  type Model,
  nearestName,
  positionLimit,
} from "../../../mod.ts";
import { type Command, print } from "../command.ts";
import { type Conversation, conversation } from "../conversation.ts";
import { EXIT, refused, WrongCall } from "../errors.ts";
import { modelDirectory } from "../files.ts";
import type { Values } from "../flags.ts";
import { interruptible } from "../interrupt.ts";
import type { Io } from "../io.ts";
import { LINEAR_NOTE } from "../linear_help.ts";
import { lineReader, type ReadLine } from "../lines.ts";
import { withModel } from "../open_model.ts";
import { GENERATE_FLAGS, generateOptions, MODEL_FLAGS } from "../options.ts";
import { readChatTemplate, requireChatTemplate } from "../prompt.ts";
import { PRUNE_NOTE } from "../prune_help.ts";
import { warnOfRun } from "../warnings.ts";

const COMMANDS: Readonly<Record<string, string>> = {
  "/reset": "begin anew",
  "/help": "this text",
  "/exit": "end; so does Ctrl-D",
};

/** Reads lines and answers each, on a terminal or from a pipe. */
export const chat: Command = {
  name: "chat",
  summary: "Talk with a model: each line of stdin is a message, the answer goes to stdout",
  notes: [
    "A chat needs a chat template: the model's own, or the one in --chat-template FILE.",
    "The lines /reset, /help and /exit are commands. Ctrl-C stops an answer, Ctrl-D ends the chat.",
    LINEAR_NOTE,
    PRUNE_NOTE,
  ],
  examples: [
    ["chat --model DIR", "With a model that has a chat template"],
    [
      'chat --model DIR --system "Answer in one sentence." --temperature 0',
      "With a system message, always the likeliest answer",
    ],
    [
      "chat --model examples/models/novel-llama --chat-template tests/fixtures/chatml.jinja --max-tokens 40",
      "With a template for a model that has none",
    ],
    [
      "chat --model DIR --prune pyramid-infer:keep=0.6",
      "With a pruned KV cache: each message is pruned by itself, what was read before stays",
    ],
  ],
  flags: [...MODEL_FLAGS, "system", "chat-template", ...GENERATE_FLAGS, "quiet"],
  run(io, values) {
    return interruptible(io, async (signal) => {
      const directory = await modelDirectory(io, values);
      const { chatTemplate: template } = await readChatTemplate(io, values);
      await requireChatTemplate(directory, template, "continue plain text with cairn generate");
      return await withModel(io, values, signal, async (model) => {
        using talk = conversation(model, { system: values.system, template });
        return await converse(io, values, model, talk, lineReader(io.stdin.readable));
      });
    });
  },
};

async function converse(
  io: Io,
  values: Values,
  model: Model,
  talk: Conversation,
  readLine: ReadLine,
): Promise<number> {
  const options = generateOptions(values, model);
  const typed = io.stdin.isTerminal;
  if (typed && !values.quiet) io.stderr.write("Type a message and press Enter; /help lists the commands\n");
  for (;;) {
    if (typed) io.stderr.write("> ");
    const line = await interruptible(io, readLine);
    if (line === undefined) {
      if (typed) io.stderr.write("\n");
      return EXIT.ok;
    }
    const text = line.trim();
    if (text === "") continue;
    if (text === "/exit") return EXIT.ok;
    if (/^\/[a-z]+$/i.test(text)) obey(io, talk, text);
    else await answer(io, values, model, talk, text, options);
  }
}

function obey(io: Io, talk: Conversation, command: string): void {
  if (command === "/reset") return talk.reset();
  const names = Object.keys(COMMANDS);
  if (command === "/help") {
    io.stderr.write(names.map((name) => `${name.padEnd(7)} ${COMMANDS[name]}\n`).join(""));
    return;
  }
  const similar = nearestName(command, names);
  io.stderr.write(
    `There is no ${command}: ${similar ? `did you mean ${similar}?` : "/help lists the commands"}\n`,
  );
}

async function answer(
  io: Io,
  values: Values,
  model: Model,
  talk: Conversation,
  text: string,
  options: GenerateOptions,
): Promise<void> {
  await interruptible(io, async (signal) => {
    let run: ReturnType<Conversation["say"]>;
    try {
      run = talk.say(text, { ...options, signal });
    } catch (error) {
      // The template's refusals are errors of another kind.
      throw refused(error);
    }
    try {
      for await (const piece of run) await io.stdout.write(piece.bytes);
      const record = await run.record;
      await print(io, "\n");
      warnOfRun(io, values, model, record);
      if (!values.quiet) io.stderr.write(statistics(record, talk, model));
    } catch (error) {
      // At a terminal one may go on after a message that was too long, or too short for its budget; a script should not.
      const tooLong = error instanceof RangeError;
      if (!(tooLong || error instanceof WrongCall) || !io.stdin.isTerminal) throw error;
      io.stderr.write(`cairn: ${error.message}${tooLong ? "; /reset begins anew" : ""}\n`);
    }
  });
}

function statistics(
  { usage, timing, finishReason, pruning, cacheTokens }: GenerateRecord,
  talk: Conversation,
  model: Model,
): string {
  const limit = positionLimit(model);
  // Layers that keep a state have no tokens.
  const layers = cacheTokens.filter((tokens) => tokens > 0);
  const kept = layers.reduce((sum, tokens) => sum + tokens, 0) / layers.length;
  return `[${usage.promptTokens} tokens read, ${usage.completionTokens} written, ended by ${finishReason}, ` +
    `${timing.decodeTokensPerSecond.toFixed(0)} tokens/s; ${talk.tokens}${
      limit === undefined ? "" : ` of ${limit}`
    } in use${pruning ? `, ${kept.toFixed(0)} of them in a layer's cache` : ""}]\n`;
}
