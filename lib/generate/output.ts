// From sampled tokens to a text: detokenises, looks for stop strings, collects what the record tells.

import type { Model } from "../models/mod.ts";
import { createDetokenizer, createStopMatcher } from "../text/mod.ts";
import type { ResolvedOptions } from "./options.ts";
import type { Sampled } from "./tables.ts";

/** Natural log-probabilities of a token under the model's own distribution. */
export interface TokenLogprobs {
  /** The chosen token. */
  readonly id: number;
  /** Its log-probability. */
  readonly logprob: number;
  /** The likeliest tokens, in descending order. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** Part of a text, as it becomes known. */
export interface Piece {
  /** Index of the prompt it continues. */
  readonly index: number;
  /** Text; whole characters only, empty while one is incomplete. */
  readonly text: string;
  /** The text as UTF-8. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Token ids that came with it. */
  readonly ids: readonly number[];
  /** For each id, when asked for. */
  readonly logprobs?: readonly TokenLogprobs[];
}

/** Why a text ended: a stop id or string, the token limit, or an abort. */
export type FinishReason = "stop" | "length" | "aborted";

/** A text being made. */
export interface Output {
  /** All ids so far, without the stop token. */
  readonly ids: readonly number[];
  /** All text so far. */
  readonly text: string;
  /** Log-probabilities of all ids. */
  readonly logprobs: readonly TokenLogprobs[];
  /** Set when the text has ended. */
  readonly finishReason: FinishReason | undefined;
  /** Whether it ended with a stop token: then every id of it was fed back, else the last one was not. */
  readonly stopToken: boolean;
  /** Takes a sample; false when it ended the text. */
  take(sample: Sampled): boolean;
  /** Ends the text from outside. */
  abort(): void;
  /** What came since the last call, or undefined. */
  piece(): Piece | undefined;
}

const encoder = new TextEncoder();

/** Begins the text that continues `prompt`. */
export function createOutput(
  model: Model,
  prompt: readonly number[],
  index: number,
  options: ResolvedOptions,
): Output {
  const { tokenizer } = model;
  const detokenizer = tokenizer && createDetokenizer(tokenizer, { skipSpecialTokens: true, prompt });
  const stops = createStopMatcher(options.stop);
  const ids: number[] = [];
  const logprobs: TokenLogprobs[] = [];
  let text = "";
  let told = { ids: 0, text: 0, logprobs: 0 };
  let finishReason: FinishReason | undefined;
  let stopToken = false;

  const pass = (more: string): boolean => {
    const piece = stops.push(more);
    text += piece.text;
    return piece.stopped;
  };
  const finish = (reason: FinishReason): false => {
    finishReason = reason;
    if (detokenizer && pass(detokenizer.flush().text)) finishReason = "stop";
    else {
      const last = stops.flush();
      text += last.text;
      if (last.stopped) finishReason = "stop";
    }
    return false;
  };
  return {
    ids,
    logprobs,
    get text() {
      return text;
    },
    get finishReason() {
      return finishReason;
    },
    get stopToken() {
      return stopToken;
    },
    take(sample: Sampled): boolean {
      stopToken = sample.stopped === 1;
      if (stopToken) return finish("stop");
      ids.push(sample.id);
      if (options.logprobs !== undefined) {
        logprobs.push({ id: sample.id, logprob: sample.logprob, top: sample.top });
      }
      if (detokenizer && pass(detokenizer.push(sample.id).text)) {
        finishReason = "stop";
        return false;
      }
      return sample.stopped === 2 ? finish("length") : true;
    },
    abort(): void {
      if (finishReason === undefined) finish("aborted");
    },
    piece(): Piece | undefined {
      if (told.ids === ids.length && told.text === text.length) return undefined;
      const news = text.slice(told.text);
      const piece: Piece = {
        index,
        text: news,
        bytes: encoder.encode(news),
        ids: ids.slice(told.ids),
        ...(options.logprobs === undefined ? {} : { logprobs: logprobs.slice(told.logprobs) }),
      };
      told = { ids: ids.length, text: text.length, logprobs: logprobs.length };
      return piece;
    },
  };
}
