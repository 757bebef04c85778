// A conversation: messages, and a session that has read them so far.

import {
  type ChatMessage,
  type GenerateOptions,
  type GenerateRecord,
  type GenerateRun,
  type Model,
  renderChat,
  type Session,
  session,
} from "../../mod.ts";

/** What a conversation is held by. */
export interface ConversationOptions {
  /** System message. */
  readonly system?: string;
  /** Jinja source of a chat template. Default: the model's own. */
  readonly template?: string;
}

/** Turns of a user and a model. Only what is new is read in a turn. */
export interface Conversation extends Disposable {
  /** All messages so far. */
  readonly messages: readonly ChatMessage[];
  /** Tokens the model has before it: of the chat so far, without what ended the last answer. */
  readonly tokens: number;
  /**
   * Takes what the user says and begins the answer, which counts as a message when its record is there. A turn that fails
   * is as if it had not been.
   */
  say(text: string, options?: GenerateOptions): GenerateRun<GenerateRecord>;
  /** Forgets everything but the system message. */
  reset(): void;
}

/**
 * What a session still has to read of a chat, or undefined when the chat does not begin with what it has read: templates
 * may rewrite history (drop an earlier answer's thoughts, say), and a text's tokens need not be those it was generated as.
 *
 * The session lacks the stop token that ended its answer; the chat has it at that place, so that it comes first here.
 */
export function unread(chat: readonly number[], read: readonly number[]): number[] | undefined {
  const begins = read.length < chat.length && read.every((id, i) => id === chat[i]);
  return begins ? chat.slice(read.length) : undefined;
}

/**
 * Begins a conversation.
 *
 * @throws {Error} when the model has no tokenizer.
 */
export function conversation(model: Model, options: ConversationOptions = {}): Conversation {
  const { tokenizer } = model;
  if (!tokenizer) {
    throw new Error(`The model in ${model.directory} has no tokenizer.json, and a chat needs one`);
  }
  const beginning = (): ChatMessage[] =>
    options.system === undefined ? [] : [{ role: "system", content: options.system }];
  let messages = beginning();
  let current: Session | undefined;
  const forget = () => {
    current?.dispose();
    current = undefined;
  };
  const settle = async (record: Promise<GenerateRecord>, asked: ChatMessage[]): Promise<GenerateRecord> => {
    try {
      const settled = await record;
      messages = [...asked, { role: "assistant", content: settled.text }];
      return settled;
    } catch (error) {
      // The session may have taken the question in.
      forget();
      throw error;
    }
  };
  return {
    get messages() {
      return messages;
    },
    get tokens() {
      return current?.ids.length ?? 0;
    },
    say(text, generateOptions = {}): GenerateRun<GenerateRecord> {
      const asked: ChatMessage[] = [...messages, { role: "user", content: text }];
      const chat = renderChat(tokenizer, asked, { template: options.template });
      let news = current && unread(chat, current.ids);
      if (!current || !news) {
        forget();
        current = session(model);
        news = chat;
      }
      const run = current.generate(news, generateOptions);
      const record = settle(run.record, asked);
      // Who only iterates gets the error there.
      record.catch(() => {});
      return { record, [Symbol.asyncIterator]: () => run[Symbol.asyncIterator]() };
    },
    reset(): void {
      forget();
      messages = beginning();
    },
    [Symbol.dispose]: forget,
  };
}
