// The prompt, from wherever it was given.

import { type ChatMessage, describeModel, type Model, type Prompt, renderChat } from "../../mod.ts";
import { WrongCall } from "./errors.ts";
import { decodeText, readUserFile } from "./files.ts";
import type { Values } from "./flags.ts";
import { orAbort } from "./interrupt.ts";
import type { Io } from "./io.ts";

/** A prompt and the chat template it is for. */
export interface GivenPrompt {
  /** Text, ids, or messages. */
  readonly prompt: Prompt;
  /** Source of the template given, if any. */
  readonly chatTemplate?: string;
}

const SOURCES = ["prompt", "prompt-file", "prompt-ids"] as const;

async function readStdin(io: Io, signal: AbortSignal): Promise<string> {
  if (io.stdin.isTerminal) {
    throw new WrongCall("There is no prompt: add --prompt TEXT, or pipe a text in");
  }
  const bytes = await orAbort(
    new Response(io.stdin.readable as ReadableStream<Uint8Array<ArrayBuffer>>).bytes(),
    signal,
  );
  return decodeText(bytes, "The text on stdin");
}

/** Whether one of the flags gives a prompt. */
export function hasPrompt(values: Values): boolean {
  return SOURCES.some((source) => values[source] !== undefined);
}

/**
 * Reads the prompt that the flags give, or else stdin. With a system message or a chat template it is the user's message of
 * a chat.
 *
 * @throws {WrongCall} when there is none, or more than one.
 */
export async function readPrompt(io: Io, values: Values, signal: AbortSignal): Promise<GivenPrompt> {
  const given = SOURCES.filter((source) => values[source] !== undefined);
  if (given.length > 1) {
    throw new WrongCall(`--${given[0]} and --${given[1]} both give a prompt: keep one of them`);
  }
  const isChat = values.system !== undefined || values["chat-template"] !== undefined;
  const ids = values["prompt-ids"];
  if (ids && isChat) {
    throw new WrongCall(
      `--${
        values.system === undefined ? "chat-template" : "system"
      } needs a text: give it with --prompt instead ` +
        "of --prompt-ids",
    );
  }
  if (ids) return { prompt: ids };
  const file = values["prompt-file"];
  const text = values.prompt ??
    (file === undefined ? await readStdin(io, signal) : await readUserFile(io, file, "prompt file"));
  if (text === "") throw new WrongCall("The prompt is empty: give at least one character");
  if (!isChat) return { prompt: text };
  return { prompt: messages(values.system, text), ...await readChatTemplate(io, values) };
}

function isChat(prompt: Exclude<Prompt, string>): prompt is readonly ChatMessage[] {
  return typeof prompt[0] === "object";
}

/** Token ids of a prompt, or undefined where it takes a tokenizer and the model has none. */
export function promptIds(
  { tokenizer }: Model,
  { prompt, chatTemplate: template }: GivenPrompt,
): readonly number[] | undefined {
  if (typeof prompt !== "string" && !isChat(prompt)) return prompt;
  if (!tokenizer) return undefined;
  return typeof prompt === "string" ? tokenizer.encode(prompt) : renderChat(tokenizer, prompt, { template });
}

/** A chat's first messages. */
export function messages(system: string | undefined, user: string): ChatMessage[] {
  return [
    ...system === undefined ? [] : [{ role: "system", content: system } as const],
    { role: "user", content: user },
  ];
}

/** The template that `--chat-template` names. */
export async function readChatTemplate(io: Io, values: Values): Promise<{ readonly chatTemplate?: string }> {
  const file = values["chat-template"];
  return file === undefined ? {} : { chatTemplate: await readUserFile(io, file, "chat template") };
}

/**
 * Makes sure of a chat template before a model's weights are loaded.
 *
 * @param otherwise What else the user may do, for the message.
 * @throws {WrongCall} when the model has none and none was given.
 */
export async function requireChatTemplate(
  directory: string,
  given: string | undefined,
  otherwise: string,
): Promise<void> {
  if (given !== undefined) return;
  using model = await describeModel(directory);
  if (model.tokenizer?.chatTemplate !== undefined) return;
  throw new WrongCall(
    model.tokenizer
      ? `The model in ${directory} has no chat template: give one with --chat-template FILE, or ${otherwise}`
      : `The model in ${directory} has no tokenizer.json, and a chat needs one: add it, or pass token ids with ` +
        "cairn generate --prompt-ids",
  );
}
