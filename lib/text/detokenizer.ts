// Ids to text as they come, in pieces that never cut a character.

import type { Tokenizer } from "./tokenizer.ts";
import { decodeUtf8, incompleteTail } from "./utf8.ts";

/** What a push makes known of the text. Both are empty while a character is incomplete. */
export interface DetokenizerPiece {
  /** The text. */
  text: string;
  /** The bytes it was made from: its UTF-8, but where these were invalid and the text has U+FFFD instead. */
  bytes: Uint8Array;
}

/** How ids are turned into pieces. */
export interface DetokenizerOptions {
  /** Leaves special tokens out (default false, as in `decode`). */
  skipSpecialTokens?: boolean;
  /**
   * Ids that came before: the pieces then continue their text, and keep a space that decoding takes off at the
   * beginning of a text only. A character begun there comes with the piece that completes it.
   */
  prompt?: readonly number[];
}

/** A text that comes id by id. */
export interface Detokenizer {
  /**
   * Takes the next id.
   *
   * @throws {RangeError} When the id is not a whole number from 0.
   */
  push(id: number): DetokenizerPiece;
  /** Gives what was held back: a character that nothing completes any more, as U+FFFD. */
  flush(): DetokenizerPiece;
}

/**
 * A streaming decoder: all its pieces in a row, flush included, are `decode` of all ids, to the letter. With a prompt,
 * they are what `decode` of prompt and ids has beyond `decode` of the prompt (less a character that this ends in).
 *
 * @param tokenizer The model's tokenizer.
 * @param options What to leave out, and what came before.
 */
export function createDetokenizer(tokenizer: Tokenizer, options: DetokenizerOptions = {}): Detokenizer {
  const { skipSpecialTokens = false, prompt = [] } = options;
  const inner = tokenizer.byteDecoder !== undefined
    ? byteDetokenizer(tokenizer.byteDecoder.start())
    : windowDetokenizer((ids) => tokenizer.decode(ids));
  const detokenizer: Detokenizer = {
    push(id) {
      if (!Number.isInteger(id) || id < 0) {
        throw new RangeError(`Token id must be a whole number from 0: received ${id}`);
      }
      return skipSpecialTokens && tokenizer.specialIds.has(id) ? emptyPiece() : inner.push(id);
    },
    flush: inner.flush,
  };
  for (const id of prompt) detokenizer.push(id);
  return detokenizer;
}

/** For tokens that are bytes: gives all bytes but those of a character that may still be completed, at most three. */
function byteDetokenizer(bytesOf: (id: number) => Uint8Array): Detokenizer {
  let held: Uint8Array = new Uint8Array(0);
  return {
    push(id) {
      const next = bytesOf(id);
      const all = new Uint8Array(held.length + next.length);
      all.set(held);
      all.set(next, held.length);
      const complete = all.length - incompleteTail(all);
      held = all.subarray(complete);
      const bytes = all.subarray(0, complete);
      return { text: decodeUtf8(bytes), bytes };
    },
    flush() {
      const bytes = held;
      held = new Uint8Array(0);
      return { text: decodeUtf8(bytes), bytes };
    },
  };
}

/**
 * For decoders that look at a token's neighbours: decodes a short window twice, without and with the new ids, and
 * gives what the second text has more. A text that ends in U+FFFD may be half a character and waits.
 */
function windowDetokenizer(decode: (ids: readonly number[]) => string): Detokenizer {
  let window: number[] = [];
  /** How many of the window's ids have their text given out; they are there as neighbours of the next. */
  let given = 0;
  const advance = (final: boolean): DetokenizerPiece => {
    const before = decode(window.slice(0, given));
    const after = decode(window);
    const wait = after.endsWith("\ufffd") || after.length === before.length;
    if (wait && !final) return emptyPiece();
    window = window.slice(given);
    given = window.length;
    const text = after.slice(before.length);
    return { text, bytes: new TextEncoder().encode(text) };
  };
  return {
    push(id) {
      window.push(id);
      return advance(false);
    },
    flush: () => given === window.length ? emptyPiece() : advance(true),
  };
}

function emptyPiece(): DetokenizerPiece {
  return { text: "", bytes: new Uint8Array(0) };
}
