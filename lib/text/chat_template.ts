// Chat messages to token ids, by the model's chat template.

import { Template } from "@huggingface/jinja";
import { contentPattern } from "./special_tokens.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { unusedCharacter } from "./unused_character.ts";

/** Who speaks. */
export type ChatRole = "system" | "developer" | "user" | "assistant" | "tool";

/** One message of a chat. */
export interface ChatMessage {
  /** Who speaks. */
  role: ChatRole;
  /** What is said: text in which special tokens have no power. */
  content: string;
}

/** How a chat is rendered. */
export interface RenderChatOptions {
  /** Jinja source to use instead of the model's own template. */
  template?: string;
  /** Whether the beginning of the assistant's answer stands at the end (default true). */
  addGenerationPrompt?: boolean;
  /** Whether BOS is set before a text that does not begin with it (default false: the template writes it). */
  bos?: boolean;
}

const ROLES: readonly string[] = ["system", "developer", "user", "assistant", "tool"] satisfies ChatRole[];

/**
 * Token ids of a chat, as `apply_chat_template` of the transformers library gives them.
 *
 * One thing is other than there: a special token that the template writes is that token, and one typed inside a
 * message stays plain text. Each one typed gets an invisible mark before it (a private-use character that occurs
 * nowhere in the chat), the template is rendered with the marks, and when they are taken out again they tell which
 * places are text. The marks go wherever the template takes the message (trimmed, repeated, cut), so the template
 * need not be understood. It can tell a marked message from an unmarked one only by asking what it begins with or by
 * counting its characters. Beside special tokens, markup that the template itself writes (`<｜User｜>`, which some
 * models list as an ordinary added token) counts in all messages but the assistant's, where it is history.
 *
 * @param tokenizer The model's tokenizer.
 * @param messages The chat so far, at least one message.
 * @param options Another template, and what stands at the ends.
 * @throws {Error} When there is no chat template, or when the template fails or refuses the messages.
 * @throws {SyntaxError} When the template is not valid Jinja.
 * @throws {RangeError} When there are no messages, or a role is unknown.
 * @throws {TypeError} When a message has no text.
 */
export function renderChat(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: RenderChatOptions = {},
): number[] {
  const { template = tokenizer.chatTemplate, addGenerationPrompt = true, bos = false } = options;
  if (template === undefined) {
    throw new Error(
      "This model has no chat template: pass one with --chat-template FILE or prompt with plain text",
    );
  }
  checkMessages(messages);
  const special = [...tokenizer.addedTokens].filter(([, id]) => tokenizer.specialIds.has(id));
  const written = [...tokenizer.addedTokens].filter(([content]) =>
    isMarkup(content) && template.includes(content)
  );
  const mark = unusedCharacter([
    template,
    ...tokenizer.addedTokens.keys(),
    ...messages.map((m) => m.content),
  ]);
  const marked = messages.map(({ role, content }) => {
    const control = role === "assistant" ? special : [...special, ...written];
    return { role, content: markPlaces(content, control.map(([text]) => text), mark) };
  });
  const [text, places] = takeMarks(render(template, tokenizer, marked, addGenerationPrompt), mark);
  if (places.size === 0) return tokenizer.encode(text, { bos });
  const control = new Set([...special, ...written].map(([, id]) => id));
  return tokenizer.encode(text, {
    bos,
    specialTokens: (id, start, end) => !control.has(id) || !hasPlace(places, start, end),
  });
}

function checkMessages(messages: readonly ChatMessage[]): void {
  if (messages.length === 0) throw new RangeError("A chat needs at least one message: received none");
  for (const [i, { role, content }] of messages.entries()) {
    if (!ROLES.includes(role)) {
      throw new RangeError(`Message ${i + 1} has the role "${role}": use one of ${ROLES.join(", ")}`);
    }
    if (typeof content !== "string") {
      throw new TypeError(
        `Message ${i + 1} must have a text as content: received ${JSON.stringify(content)}`,
      );
    }
  }
}

/** Whether an added token looks like `<|user|>` or `[INST]`, and not like a word or like white space. */
function isMarkup(content: string): boolean {
  return /^[\p{P}\p{S}].+[\p{P}\p{S}]$/u.test(content);
}

/** Sets the mark before every place where one of the texts begins, overlapping ones too. */
function markPlaces(content: string, texts: readonly string[], mark: string): string {
  const pattern = contentPattern(texts);
  let marked = "";
  let end = 0;
  for (let match = pattern.exec(content); match !== null; match = pattern.exec(content)) {
    marked += content.slice(end, match.index) + mark;
    end = match.index;
    pattern.lastIndex = match.index + 1;
  }
  return marked + content.slice(end);
}

/** The text without its marks, and where in it they were. */
function takeMarks(rendered: string, mark: string): [text: string, places: Set<number>] {
  const places = new Set<number>();
  const [text, ...parts] = rendered.split(mark);
  let whole = text;
  for (const part of parts) {
    places.add(whole.length);
    whole += part;
  }
  return [whole, places];
}

function hasPlace(places: ReadonlySet<number>, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (places.has(at)) return true;
  return false;
}

function render(
  source: string,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  addGenerationPrompt: boolean,
): string {
  let template: Template;
  try {
    template = new Template(source);
  } catch (error) {
    throw new SyntaxError(
      `Chat template is not valid Jinja (${
        (error as Error).message
      }): correct it, or pass another with --chat-template FILE`,
      { cause: error },
    );
  }
  try {
    // raise_exception and strftime_now are built into the library. Templates ask `tools is not none`: null, not absent.
    return template.render({
      bos_token: "",
      eos_token: "",
      ...tokenizer.namedTokens,
      messages,
      tools: null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
    });
  } catch (error) {
    throw new Error(`Chat template does not take these messages: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
