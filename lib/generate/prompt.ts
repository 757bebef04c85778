// Prompts: a text, token ids, chat messages, or an array of these, as token ids.

import { coresOf } from "../layers/mod.ts";
import type { Model } from "../models/mod.ts";
import { type ChatMessage, renderChat } from "../text/mod.ts";

/** What a model continues: a text, token ids, or a chat. */
export type Prompt = string | readonly number[] | readonly ChatMessage[];

/** How prompts are encoded. */
export interface EncodePromptOptions {
  /** Whether BOS is set before a text. */
  readonly bos?: boolean;
  /** Chat template instead of the model's own. */
  readonly chatTemplate?: string;
}

function isMessage(value: unknown): value is ChatMessage {
  return typeof value === "object" && value !== null && "role" in value && "content" in value;
}

/** Whether a prompt is an array of prompts. */
export function isBatch(prompt: Prompt | readonly Prompt[]): prompt is readonly Prompt[] {
  if (!Array.isArray(prompt) || prompt.length === 0) return false;
  const [first] = prompt;
  return typeof first === "string" || Array.isArray(first);
}

/**
 * Token ids of a prompt.
 *
 * @throws {TypeError} when it is neither a text nor a list.
 * @throws {RangeError} when it is empty, or an id is not in the vocabulary.
 * @throws {Error} when it is a text or a chat and the model has no tokenizer.
 */
export function encodePrompt(model: Model, prompt: Prompt, options: EncodePromptOptions = {}): number[] {
  const ids = toIds(model, prompt, options);
  if (ids.length === 0) throw new RangeError("The prompt is empty: give at least one token");
  checkIds(model, ids);
  return ids;
}

/** Throws unless all ids are in the vocabulary. */
export function checkIds(model: Model, ids: readonly number[]): void {
  const { vocabularySize } = model.config;
  const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabularySize);
  if (bad >= 0) {
    throw new RangeError(
      `Token id ${ids[bad]} at index ${bad} is out of range: the vocabulary has ${vocabularySize} ids`,
    );
  }
}

function toIds(model: Model, prompt: Prompt, options: EncodePromptOptions): number[] {
  if (typeof prompt !== "string" && !Array.isArray(prompt)) {
    throw new TypeError(
      `A prompt must be a text, a list of token ids or a list of chat messages: received ${prompt}`,
    );
  }
  if (typeof prompt !== "string" && !prompt.some(isMessage)) return [...prompt as readonly number[]];
  const { tokenizer } = model;
  if (!tokenizer) {
    throw new Error(`The model in ${model.directory} has no tokenizer.json: give the prompt as token ids`);
  }
  const bos = options.bos === undefined ? {} : { bos: options.bos };
  if (typeof prompt === "string") return tokenizer.encode(prompt, bos);
  return renderChat(tokenizer, prompt as readonly ChatMessage[], {
    ...bos,
    ...(options.chatTemplate === undefined ? {} : { template: options.chatTemplate }),
  });
}

/**
 * Throws when rows see later ones, so that there is no next token.
 *
 * @throws {TypeError} then.
 */
export function requireCausal(model: Model): void {
  if (coresOf(model).some(({ bidirectional }) => bidirectional)) {
    throw new TypeError(
      "This model is bidirectional and has no next token: take its hidden states with forward",
    );
  }
}

/** What is worth knowing of a run of so many tokens. */
export function runWarnings(model: Model, tokens: number): string[] {
  const { contextLength } = model.config;
  return [
    ...(model.linearized ?? []).map(({ warning }) => warning),
    ...(positionLimit(model) === undefined && tokens > contextLength
      ? [
        `${tokens} tokens are over the ${contextLength} that the model was made for: what it writes may be worse`,
      ]
      : []),
  ];
}

/** Longest sequence a model can run, or undefined when none of its cores has a limit. */
export function positionLimit(model: Model): number | undefined {
  const cores = coresOf(model);
  const least = Math.min(...cores.map(({ longest = Infinity }) => longest));
  const own = cores.length > 0 && cores.every((core) => !core.positionLimit)
    ? Infinity
    : model.config.contextLength;
  const limit = Math.min(least, own);
  return limit === Infinity ? undefined : limit;
}

/** Whose limit that is, for errors. */
export function limitName(model: Model): string {
  const limit = positionLimit(model);
  const core = coresOf(model).find(({ longest }) => longest === limit);
  return core ? `the longest sequence of its ${core.kind} layers` : "the model's context";
}

/**
 * New tokens that a run of `used` tokens may make.
 *
 * @throws {RangeError} when the prompt alone, or with the tokens asked for, is over the context.
 */
export function allowedTokens(model: Model, used: number, maxTokens: number | undefined): number {
  const limit = positionLimit(model);
  if (limit === undefined) return maxTokens ?? 256;
  const left = limit - used;
  if (left < 1) {
    throw new RangeError(
      `The prompt has ${used} tokens and ${limitName(model)} ${limit}: at least one must be left to generate`,
    );
  }
  if (maxTokens !== undefined && maxTokens > left) {
    throw new RangeError(
      `The prompt's ${used} tokens and maxTokens ${maxTokens} are over ${limitName(model)} of ${limit}: ` +
        `at most ${left} are left`,
    );
  }
  return maxTokens ?? Math.min(256, left);
}
