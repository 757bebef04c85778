/**
 * Tokenizers for the tests of lib/text/: the one that comes along, and small ones of other families.
 *
 * @module
 */

import { fromFileUrl, join } from "@std/path";
import { createTokenizer, type Tokenizer } from "../../lib/text/mod.ts";

/** A folder with a byte-level BPE tokenizer of 4096 tokens, `<|endoftext|>` = 0. */
export const novelDir: string = fromFileUrl(new URL("../../examples/models/novel-llama", import.meta.url));

/** The ChatML template. */
export const chatml: string = await Deno.readTextFile(new URL("../fixtures/chatml.jinja", import.meta.url));

const novelJson = await Deno.readTextFile(join(novelDir, "tokenizer.json"));

const shared = fromFileUrl(new URL("../../../shared", import.meta.url));

/** A path in the folder of models beside the repository, and whether it is there. */
export function sharedModel(...parts: string[]): { path: string; absent: boolean } {
  const path = join(shared, "models", ...parts);
  try {
    Deno.statSync(path);
    return { path, absent: false };
  } catch {
    return { path, absent: true };
  }
}

/** An added token of a tokenizer.json. */
export interface Added {
  id: number;
  content: string;
  special?: boolean;
  normalized?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
}

/** The tokenizer that comes along with more added tokens and another configuration. */
export function novelTokenizer(added: Added[] = [], config: Record<string, unknown> = {}): Tokenizer {
  const tokenizer = JSON.parse(novelJson);
  tokenizer.added_tokens.push(...added);
  return createTokenizer({
    path: "tokenizer.json",
    tokenizer,
    config: { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>", ...config },
  });
}

/** The same with the tokens of ChatML: `<|im_start|>` = 4096, `<|im_end|>` = 4097. */
export function chatmlTokenizer(more: Added[] = [], config: Record<string, unknown> = {}): Tokenizer {
  const added = [
    { id: 4096, content: "<|im_start|>", special: true, normalized: false },
    { id: 4097, content: "<|im_end|>", special: true, normalized: false },
    ...more,
  ];
  return novelTokenizer(added, { eos_token: "<|im_end|>", chat_template: chatml, ...config });
}

/** A tokenizer.json with parts of one's own. */
export function tokenizerJson(parts: Record<string, unknown>): Record<string, unknown> {
  return {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    added_tokens: [],
    ...parts,
  };
}

function special(...contents: string[]): Added[] {
  return contents.map((content, id) => ({ id, content, special: true, normalized: false }));
}

/** Sets one token before a text. */
export function setBefore(content: string, id: number): Record<string, unknown> {
  return {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: content, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { [content]: { id: content, ids: [id], tokens: [content] } },
  };
}

const byteTokens = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);

/** Like Llama 2's: ▁ for spaces, byte b = 3 + b, then ▁ a b c ▁a ab ▁ab é from 259 on; BOS `<s>` = 1. */
export const llamaJson: Record<string, unknown> = tokenizerJson({
  model: {
    type: "BPE",
    unk_token: "<unk>",
    fuse_unk: true,
    byte_fallback: true,
    ignore_merges: false,
    vocab: Object.fromEntries(
      ["<unk>", "<s>", "</s>", ...byteTokens, "▁", "a", "b", "c", "▁a", "ab", "▁ab", "é"].map((
        t,
        id,
      ) => [t, id]),
    ),
    merges: [["▁", "a"], ["a", "b"], ["▁a", "b"]],
  },
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "▁" },
      { type: "Replace", pattern: { String: " " }, content: "▁" },
    ],
  },
  post_processor: setBefore("<s>", 1),
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
  added_tokens: special("<unk>", "<s>", "</s>"),
});

const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };

/** Like T5's: a unigram model whose vocabulary lists the special tokens too. */
export const unigramJson: Record<string, unknown> = tokenizerJson({
  model: {
    type: "Unigram",
    unk_id: 0,
    vocab: [
      ["<unk>", 0],
      ["<s>", 0],
      ["</s>", 0],
      ["▁", -3],
      ["a", -4],
      ["b", -4.1],
      ["▁a", -2],
      ["ab", -3.5],
      ["▁ab", -1.5],
      ["<", -6],
      ["s", -6],
      [">", -6],
      ["/", -6],
    ],
  },
  pre_tokenizer: metaspace,
  decoder: metaspace,
  added_tokens: special("<unk>", "<s>", "</s>"),
});

/** Like BERT's: word pieces, whose decoder looks at the place of a token. */
export const wordPieceJson: Record<string, unknown> = tokenizerJson({
  model: {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: {
      "[UNK]": 0,
      "[CLS]": 1,
      "[SEP]": 2,
      "the": 3,
      "cat": 4,
      "##s": 5,
      "sat": 6,
      ".": 7,
      ",": 8,
      "[": 9,
      "]": 10,
      "##l": 11,
      "c": 12,
    },
  },
  normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, lowercase: true },
  pre_tokenizer: { type: "BertPreTokenizer" },
  post_processor: { type: "BertProcessing", sep: ["[SEP]", 2], cls: ["[CLS]", 1] },
  decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  added_tokens: special("[UNK]", "[CLS]", "[SEP]"),
});

/** Like CLIP's: byte pair encoding with an end-of-word suffix, which is a space but at the end of a text. */
export const endOfWordJson: Record<string, unknown> = tokenizerJson({
  model: {
    type: "BPE",
    unk_token: "<unk>",
    end_of_word_suffix: "</w>",
    ignore_merges: false,
    vocab: { "<unk>": 0, "a": 1, "b": 2, "a</w>": 3, "b</w>": 4, "ab</w>": 5 },
    merges: [["a", "b</w>"]],
  },
  pre_tokenizer: { type: "Whitespace" },
  decoder: { type: "BPEDecoder", suffix: "</w>" },
  added_tokens: special("<unk>"),
});

/** A tokenizer of a tokenizer.json, without or with a configuration. */
export function tokenizerOf(
  tokenizer: Record<string, unknown>,
  config: Record<string, unknown> = {},
): Tokenizer {
  return createTokenizer({ path: "tokenizer.json", tokenizer, config });
}

/** Whole numbers below a limit, the same at every call (Numerical Recipes' linear congruential generator). */
export function* numbers(seed: number, limit: number, count: number): Generator<number> {
  // The first numbers of neighbouring seeds are neighbours too, so the seed is spread over all bits first.
  for (let state = Math.imul(seed, 2654435761) >>> 0; count > 0; count--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield Math.floor(state / 2 ** 32 * limit);
  }
}
