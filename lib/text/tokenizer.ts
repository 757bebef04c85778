// Texts to token ids and back, by a model's own tokenizer.json.

import { Tokenizer as Library } from "@huggingface/tokenizers";
import { type ByteDecoder, createByteDecoder } from "./byte_decoder.ts";
import { createFilteredEncoder, type SpecialTokenFilter } from "./special_tokens.ts";
import {
  chatTemplateOf,
  completeTokenizerJson,
  type Component,
  namedTokens,
  readTokenizerFiles,
  type TokenizerFiles,
} from "./tokenizer_json.ts";
import { decodeUtf8 } from "./utf8.ts";

/** How a text is encoded. */
export interface EncodeOptions {
  /**
   * Whether BOS is set before the text. Default: as `add_bos_token` or else the tokenizer's own post-processor says.
   * A text that begins with BOS gets no second one.
   */
  bos?: boolean;
  /**
   * Whether the text of a special token is that token (default true). False: it is text like any other; a function
   * decides for each place.
   */
  specialTokens?: boolean | SpecialTokenFilter;
}

/** How ids are decoded. */
export interface DecodeOptions {
  /** Leaves special tokens out (default false: they are written by their names). */
  skipSpecialTokens?: boolean;
}

/** The tokenizer of a model. */
export interface Tokenizer {
  /**
   * Ids of a text.
   *
   * Nothing is set after the text, even where the tokenizer's post-processor would (EOS): it is there to be continued.
   *
   * @throws {Error} When BOS is asked for and the tokenizer has none.
   */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * The text of ids. White space is never tidied up (`clean_up_tokenization_spaces` is ignored, as transformers 5 does
   * for BPE), so that decoding gives back what was encoded. Bytes that are no UTF-8 become U+FFFD. An id that no token
   * has stands for nothing: embeddings are often padded beyond the vocabulary.
   *
   * @throws {RangeError} When an id is not a whole number from 0.
   */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /** The raw bytes a token stands for inside a text: empty for special tokens and ids without a token. */
  bytesOf(id: number): Uint8Array;
  /** One more than the highest id. */
  readonly vocabSize: number;
  /** The token that begins a text. */
  readonly bosId?: number;
  /** The tokens that end a text, as far as the tokenizer knows them; `generation_config.json` may know more. */
  readonly eosIds: readonly number[];
  /** The ids of all special tokens. */
  readonly specialIds: ReadonlySet<number>;
  /** Ids of all added tokens, special or not, by their text. */
  readonly addedTokens: ReadonlyMap<string, number>;
  /** The tokens that the config names, such as `bos_token`, by name. */
  readonly namedTokens: Readonly<Record<string, string>>;
  /** Jinja source of the chat template. */
  readonly chatTemplate?: string;
  /** Tokens as bytes, where the tokenizer's decoder allows it. */
  readonly byteDecoder?: ByteDecoder;
}

/**
 * Loads the tokenizer of a model folder: `tokenizer.json`, and what `tokenizer_config.json`,
 * `special_tokens_map.json` and `chat_template.jinja` add to it, where they are there.
 *
 * @param dir The folder.
 * @returns undefined when the folder has no `tokenizer.json`.
 * @throws {SyntaxError} When one of the files is not JSON; the message names it.
 * @throws {TypeError} When a file has another form than its format says.
 * @throws {Error} When the tokenizer has a part that is not supported; the message names the file and the part.
 */
export async function loadTokenizer(dir: string): Promise<Tokenizer | undefined> {
  const files = await readTokenizerFiles(dir);
  return files && createTokenizer(files);
}

/**
 * Makes a tokenizer from the contents of its files.
 *
 * @throws {TypeError} When a file has another form than its format says.
 * @throws {Error} When the tokenizer has a part that is not supported.
 */
export function createTokenizer(files: TokenizerFiles): Tokenizer {
  const json = completeTokenizerJson(files);
  const named = namedTokens(files.config);
  const config = { ...files.config, ...named, clean_up_tokenization_spaces: false };
  let library: Library;
  let ownPrefix: number[];
  try {
    library = new Library(json, config);
    ownPrefix = prefixOf(json.post_processor);
  } catch (error) {
    throw new Error(
      `${files.path} describes a tokenizer that is not supported (${
        (error as Error).message
      }): pass token ids instead of text`,
      { cause: error },
    );
  }
  const vocabulary = library.model!.vocab;
  const idOf = (name: string): number | undefined =>
    named[name] === undefined ? undefined : library.token_to_id(named[name]);
  const addedTokens = new Map(json.added_tokens.map(({ content, id }) => [content, id]));
  const addedIds = new Set(addedTokens.values());
  const specialIds = new Set(json.added_tokens.filter(({ special }) => special).map(({ id }) => id));
  const byteDecoder = createByteDecoder(json.decoder, (id) => vocabulary[id], (id) => addedIds.has(id));

  const bosId = idOf("bos_token") ?? (ownPrefix.length === 1 ? ownPrefix[0] : undefined);
  const fullPrefix = ownPrefix.length > 0 || bosId === undefined ? ownPrefix : [bosId];
  const addBos = files.config.add_bos_token;
  const defaultPrefix = typeof addBos !== "boolean" ? ownPrefix : addBos ? fullPrefix : [];
  const encodeFiltered = createFilteredEncoder(library, json, config);

  function encode(text: string, { bos, specialTokens = true }: EncodeOptions = {}): number[] {
    if (bos && fullPrefix.length === 0) {
      throw new Error(
        "This tokenizer has no BOS token: leave bos out, or put the ids before the prompt yourself",
      );
    }
    const ids = specialTokens === true
      ? library.encode(text, { add_special_tokens: false }).ids
      : encodeFiltered(text, specialTokens || ((id) => !specialIds.has(id)));
    // Without a token for unknown text the library gives undefined; the text is dropped, as by tokenizers in Rust.
    const known = ids.filter((id) => id !== undefined);
    const prefix = bos === undefined ? defaultPrefix : bos ? fullPrefix : [];
    return prefix.every((id, i) => known[i] === id) ? known : [...prefix, ...known];
  }

  function decode(ids: readonly number[], { skipSpecialTokens = false }: DecodeOptions = {}): string {
    for (const id of ids) checkId(id);
    const kept = ids.filter((id) =>
      vocabulary[id] !== undefined && !(skipSpecialTokens && specialIds.has(id))
    );
    if (byteDecoder !== undefined) return decodeUtf8(concatenate(kept.map(byteDecoder.start())));
    return kept.length === 0 ? "" : library.decode(kept);
  }

  function bytesOf(id: number): Uint8Array {
    checkId(id);
    if (specialIds.has(id)) return new Uint8Array(0);
    return byteDecoder?.bytes(id).slice() ?? new TextEncoder().encode(decode([id]));
  }

  return {
    encode,
    decode,
    bytesOf,
    vocabSize: vocabulary.length,
    bosId,
    eosIds: [idOf("eos_token")].filter((id) => id !== undefined),
    specialIds,
    addedTokens,
    namedTokens: named,
    chatTemplate: chatTemplateOf(files),
    byteDecoder,
  };
}

/** The ids that a post-processor sets before a text. */
function prefixOf(processor: Component | null): number[] {
  switch (processor?.type) {
    case "TemplateProcessing": {
      const { single, special_tokens: tokens } = processor as unknown as TemplateProcessing;
      const before = single.slice(0, single.findIndex((item) => item.Sequence !== undefined));
      return before.flatMap((item) => tokens[item.SpecialToken!.id].ids);
    }
    case "BertProcessing":
    case "RobertaProcessing":
      return [(processor.cls as [string, number])[1]];
    case "Sequence":
      // Each works on what the one before it made, so the last one's prefix stands first.
      return ((processor.processors ?? []) as Component[]).reduce<number[]>(
        (prefix, next) => [...prefixOf(next), ...prefix],
        [],
      );
    default:
      return [];
  }
}

interface TemplateProcessing {
  single: { SpecialToken?: { id: string }; Sequence?: { id: string } }[];
  special_tokens: Record<string, { ids: number[] }>;
}

function checkId(id: number): void {
  if (!Number.isInteger(id) || id < 0) {
    throw new RangeError(`Token id must be a whole number from 0: received ${id}`);
  }
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
