// Encoding in which an added token's text counts as that token in some places and as plain text in others.

import { Tokenizer as Library } from "@huggingface/tokenizers";
import type { AddedToken, TokenizerJson } from "./tokenizer_json.ts";
import { unusedCharacter } from "./unused_character.ts";

/**
 * Decides for one place where an added token's text stands whether it is that token (true) or plain text (false).
 *
 * @param id The added token.
 * @param start Where its text begins, in UTF-16 code units.
 * @param end Where it ends.
 */
export type SpecialTokenFilter = (id: number, start: number, end: number) => boolean;

/** Ids of a text's tokens, without BOS. */
export type FilteredEncoder = (text: string, accept: SpecialTokenFilter) => number[];

/**
 * An encoder with a filter for added tokens.
 *
 * The filtered tokens are given new names that the text cannot contain, and the accepted places are written with
 * these names. So the same library does everything else (splitting, white space around tokens, normalising, merges)
 * as it does without a filter, and what was refused is not a name of anything.
 *
 * @param library The tokenizer without a filter.
 * @param json Its description.
 * @param config Its configuration.
 */
export function createFilteredEncoder(
  library: Library,
  json: TokenizerJson,
  config: Record<string, unknown>,
): FilteredEncoder {
  const byContent = new Map(json.added_tokens.map((token) => [token.content, token]));
  const contents = [...byContent.keys()].filter((content) => content !== "");
  return (text, accept) => {
    const { accepted, refused } = search(text, byContent, accept);
    // Normalising can turn other text into a special token's name: those are renamed in any case.
    const renamed = new Set(json.added_tokens.filter(({ id, special }) => special || refused.has(id)));
    const mark = unusedCharacter([text, ...contents]);
    const alias = (id: number): string => `${mark}${id}${mark}`;
    let aliased = "";
    let end = 0;
    for (const place of accepted) {
      if (!renamed.has(place.token)) continue;
      aliased += text.slice(end, place.start) + alias(place.token.id);
      end = place.start + place.token.content.length;
    }
    aliased += text.slice(end);
    const tokens = json.added_tokens.map((token) =>
      renamed.has(token) ? { ...token, content: alias(token.id), normalized: false } : token
    );
    const plain = new Library({ ...json, added_tokens: tokens, model: EMPTY_MODEL }, config);
    plain.model = library.model;
    const encoding = plain.encode(aliased, { add_special_tokens: false });
    const forbidden = new Set([...renamed].map(({ content }) => content));
    return encoding.tokens.flatMap((token, i) => {
      const leaked = forbidden.has(token) && token !== library.model?.unk_token;
      return leaked ? spelled(library, token) : [encoding.ids[i]];
    });
  };
}

/** A vocabulary costs seconds and much memory to take in, and the filtered encoder shares the library's. */
const EMPTY_MODEL = { type: "BPE", vocab: {}, merges: [], ignore_merges: false };

/** All places of added tokens, leftmost and longest first; a refused one hides no other that begins inside it. */
function search(
  text: string,
  byContent: Map<string, AddedToken>,
  accept: SpecialTokenFilter,
): { accepted: { token: AddedToken; start: number }[]; refused: Set<number> } {
  const accepted: { token: AddedToken; start: number }[] = [];
  const refused = new Set<number>();
  const pattern = contentPattern(byContent.keys());
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const token = byContent.get(match[0])!;
    const start = match.index;
    if (accept(token.id, start, start + match[0].length)) {
      accepted.push({ token, start });
    } else {
      refused.add(token.id);
      pattern.lastIndex = start + 1;
    }
  }
  return { accepted, refused };
}

/** A pattern that finds any of the texts, the longest where several begin. */
export function contentPattern(contents: Iterable<string>): RegExp {
  const longestFirst = [...contents].filter((text) => text !== "").sort((a, b) => b.length - a.length);
  if (longestFirst.length === 0) return /(?!)/g;
  return new RegExp(longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"), "g");
}

/** A special token's name that the model's own vocabulary holds (unigram models list it there), letter by letter. */
function spelled(library: Library, token: string): number[] {
  const model = library.model!;
  return model.encode(Array.from(token)).flatMap((letter) =>
    model.tokens_to_ids.get(letter) ?? model.unk_token_id ?? []
  );
}
