// Tokens as bytes: for the two families of tokenizers whose text is just the bytes of its tokens, one after the other.
//
// Byte-level BPE (GPT-2, Llama 3, Qwen) writes each byte as a printable character; SentencePiece-like tokenizers
// (Llama 2, Mistral, Gemma) write a space as ▁ and bytes without a token as <0x0A>, and set a space before the text
// that decoding takes off again. Other decoders (WordPiece, CTC) look at neighbours and have no bytes of their own.

import type { Component } from "./tokenizer_json.ts";

/** Bytes of tokens. */
export interface ByteDecoder {
  /** Bytes of a token inside a text, shared with other callers; a special token's are those of its name. */
  bytes(id: number): Uint8Array;
  /** Begins a text: gives the bytes of its tokens in order, without what decoding takes off at the beginning. */
  start(): (id: number) => Uint8Array;
}

/** What a decoder makes of one token, and of the beginning of a text. */
interface Rules {
  /** Bytes of a token's text. */
  bytes(text: string, added: boolean): Uint8Array;
  /** How many of a text's first bytes fall away, if they are this byte. */
  strip: { byte: number; count: number };
  /** What the first token is taken for, where its place changes it. */
  first?(text: string): string;
}

const EMPTY = new Uint8Array(0);
const encoder = new TextEncoder();
const nothing = { byte: 0, count: 0 };

/**
 * The byte decoder of a tokenizer.
 *
 * @param decoder The `decoder` of a `tokenizer.json`.
 * @param text A token's text by its id; undefined for ids without a token, which stand for nothing.
 * @param added Whether an id is an added token, whose text is not written in byte characters.
 * @returns undefined when the decoder's text is not made of its tokens' bytes.
 */
export function createByteDecoder(
  decoder: Component | null,
  text: (id: number) => string | undefined,
  added: (id: number) => boolean,
): ByteDecoder | undefined {
  const rules = decoderRules(flatten(decoder));
  if (rules === undefined) return undefined;
  const table: Uint8Array[] = [];
  const bytes = (id: number): Uint8Array => table[id] ??= rules.bytes(text(id) ?? "", added(id));
  const start = (): (id: number) => Uint8Array => {
    let first = rules.first;
    let { byte, count } = rules.strip;
    return (id) => {
      const token = text(id);
      if (token === undefined) return EMPTY;
      let piece = first ? rules.bytes(first(token), added(id)) : bytes(id);
      first = undefined;
      while (count > 0 && piece.length > 0) {
        if (piece[0] === byte) piece = piece.subarray(1), count--;
        else count = 0;
      }
      return piece;
    };
  };
  return { bytes, start };
}

/** The decoder's steps in order, sequences in sequences opened. */
function flatten(decoder: Component | null): Component[] {
  if (decoder === null) return [];
  return decoder.type === "Sequence" ? ((decoder.decoders ?? []) as Component[]).flatMap(flatten) : [decoder];
}

function decoderRules(steps: Component[]): Rules | undefined {
  if (steps.length === 1 && steps[0].type === "ByteLevel") return { bytes: byteLevelBytes, strip: nothing };
  if (steps.length === 1 && steps[0].type === "Metaspace") return metaspaceRules(steps[0]);
  return sentencePieceRules(steps);
}

/** Replace ... ByteFallback Fuse Strip, in this order and each as far as it is there. */
function sentencePieceRules(steps: Component[]): Rules | undefined {
  const rest = [...steps];
  const replacements: { from: string; to: string }[] = [];
  while (rest[0]?.type === "Replace") {
    const { pattern, content } = rest.shift() as unknown as { pattern: { String?: string }; content: string };
    if (pattern.String === undefined) return undefined;
    replacements.push({ from: pattern.String, to: content });
  }
  const byteFallback = rest[0]?.type === "ByteFallback";
  if (byteFallback) rest.shift();
  const fuse = rest[0]?.type === "Fuse";
  if (fuse) rest.shift();
  let strip = nothing;
  // Without Fuse before it, Strip takes from every token.
  if (fuse && rest[0]?.type === "Strip") {
    const { content, start, stop } = rest.shift() as unknown as {
      content: string;
      start: number;
      stop: number;
    };
    if (stop > 0 || content.length !== 1 || content > "\x7f") return undefined;
    strip = { byte: content.charCodeAt(0), count: start };
  }
  if (rest.length > 0 || steps.length === 0) return undefined;
  return {
    strip,
    bytes(text) {
      const byte = byteFallback ? text.match(/^<0x([0-9A-Fa-f]{2})>$/) : null;
      if (byte !== null) return Uint8Array.of(parseInt(byte[1], 16));
      return encode(replacements.reduce((text, { from, to }) => text.replaceAll(from, to), text));
    },
  };
}

/** ▁ becomes a space, but in the first token, where it is the one that encoding set before the text. */
function metaspaceRules(step: Component): Rules {
  const space = (step.replacement ?? "▁") as string;
  const prepended = step.prepend_scheme !== "never" && step.add_prefix_space !== false;
  return {
    strip: nothing,
    bytes: (text) => encode(text.replaceAll(space, " ")),
    first: prepended ? (text) => text.replaceAll(space, "") : undefined,
  };
}

function encode(text: string): Uint8Array {
  return text === "" ? EMPTY : encoder.encode(text);
}

function byteLevelBytes(text: string, added: boolean): Uint8Array {
  if (added) return encode(text);
  const bytes = Array.from(text, (character) => byteOfCharacter.get(character));
  // A text with other characters is written as it is.
  return bytes.includes(undefined) ? encode(text) : Uint8Array.from(bytes as number[]);
}

/**
 * Which byte a character of byte-level BPE stands for: printable Latin-1 characters for themselves, the other bytes
 * for the characters from U+0100 on, in order (`bytes_to_unicode` of OpenAI's GPT-2 encoder.py).
 */
const byteOfCharacter: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const map = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) map.set(String.fromCharCode(printable(byte) ? byte : next++), byte);
  return map;
})();
