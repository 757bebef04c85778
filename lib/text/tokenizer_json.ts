// What a model folder says about its tokenizer, read and brought into one form.

import { join } from "@std/path";

/** A token that stands beside the model's vocabulary and is matched before it. */
export interface AddedToken {
  /** Its id. */
  id: number;
  /** Its text. */
  content: string;
  /** A control token (BOS, end of turn), not text. */
  special?: boolean;
  /** Takes the white space before it. */
  lstrip?: boolean;
  /** Takes the white space after it. */
  rstrip?: boolean;
  /** Is looked for in the normalised text. */
  normalized?: boolean;
  /** Is matched between word borders only. */
  single_word?: boolean;
}

/** A part of a `tokenizer.json` that is chosen by its type. */
export interface Component {
  /** Such as `ByteLevel`. */
  type: string;
  /** Settings of the type. */
  [setting: string]: unknown;
}

/** A `tokenizer.json` (format of the Hugging Face tokenizers library), every part present. */
export interface TokenizerJson {
  /** The vocabulary and how words are split into it. */
  model: { type?: string; vocab?: Record<string, number> | [string, number][]; [setting: string]: unknown };
  /** Tokens matched before the model sees the text. */
  added_tokens: AddedToken[];
  /** Changes to the text before splitting. */
  normalizer: Component | null;
  /** Splits the text into words. */
  pre_tokenizer: Component | null;
  /** Adds BOS and the like. */
  post_processor: Component | null;
  /** Turns tokens into text. */
  decoder: Component | null;
}

/** Everything that the files of a model folder say. */
export interface TokenizerFiles {
  /** For error messages: the path of `tokenizer.json`. */
  path: string;
  /** Contents of `tokenizer.json`. */
  tokenizer: Record<string, unknown>;
  /** Contents of `tokenizer_config.json` over those of `special_tokens_map.json`. */
  config: Record<string, unknown>;
  /** Contents of `chat_template.jinja`, which stands above the config's template. */
  chatTemplate?: string;
}

/** Names under which a config may list a special token. */
const NAMED_TOKENS = [
  "bos_token",
  "eos_token",
  "unk_token",
  "pad_token",
  "sep_token",
  "cls_token",
  "mask_token",
] as const;

/**
 * Reads the tokenizer files of a model folder.
 *
 * @param dir The folder.
 * @returns undefined when there is no `tokenizer.json`.
 * @throws {SyntaxError} When a file is not JSON; the message names it.
 * @throws {TypeError} When a file holds something other than an object.
 */
export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles | undefined> {
  const path = join(dir, "tokenizer.json");
  const tokenizer = await readObject(path);
  if (tokenizer === undefined) return undefined;
  const config = {
    ...await readObject(join(dir, "special_tokens_map.json")),
    ...await readObject(join(dir, "tokenizer_config.json")),
  };
  return { path, tokenizer, config, chatTemplate: await readText(join(dir, "chat_template.jinja")) };
}

/** The tokens that a config names, such as `bos_token`, by name; written there as a text or as an object. */
export function namedTokens(config: Record<string, unknown>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of NAMED_TOKENS) {
    const content = tokenText(config[name]);
    if (content !== undefined) tokens[name] = content;
  }
  return tokens;
}

/**
 * The `tokenizer.json` with absent parts filled in and with the special tokens that only the config knows of.
 *
 * Older files leave parts out, and often `added_tokens_decoder`, `bos_token` or `additional_special_tokens` alone
 * say that a token is special. A token that is in no vocabulary has no row in the model either, and is passed over.
 *
 * @throws {TypeError} When there is no model, or the added tokens are no list.
 */
export function completeTokenizerJson({ path, tokenizer, config }: TokenizerFiles): TokenizerJson {
  if (!isObject(tokenizer.model)) {
    throw new TypeError(`${path} has no "model": take the tokenizer.json that belongs to the weights`);
  }
  if (!Array.isArray(tokenizer.added_tokens ?? [])) {
    throw new TypeError(
      `${path} must list its "added_tokens": take the tokenizer.json that belongs to the weights`,
    );
  }
  const json = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...tokenizer,
  } as unknown as TokenizerJson;
  const added = new Map<number, AddedToken>();
  for (const token of json.added_tokens ?? []) added.set(token.id, { ...token });
  for (const [id, token] of Object.entries(config.added_tokens_decoder ?? {})) {
    const known = added.get(Number(id));
    if (known === undefined) added.set(Number(id), { ...token, id: Number(id) });
    else if (known.content === token.content) known.special ||= token.special;
  }
  const byContent = new Map([...added.values()].map((token) => [token.content, token]));
  const ids = vocabulary(json);
  for (const content of specialTexts(config)) {
    const known = byContent.get(content);
    const id = ids.get(content);
    if (known !== undefined) known.special = true;
    else if (id !== undefined) added.set(id, { id, content, special: true, normalized: false });
  }
  return { ...json, added_tokens: [...added.values()] };
}

/**
 * The chat template: `chat_template.jinja`, or the config's, given as a text or as a list with one named `default`.
 *
 * @throws {TypeError} When the config's has another form.
 */
export function chatTemplateOf({ path, config, chatTemplate }: TokenizerFiles): string | undefined {
  if (chatTemplate !== undefined) return chatTemplate;
  const template = config.chat_template;
  if (template === undefined || template === null || typeof template === "string") {
    return template ?? undefined;
  }
  if (Array.isArray(template)) {
    const entry = template.find((entry) => isObject(entry) && entry.name === "default");
    if (entry === undefined) return undefined;
    if (typeof entry.template === "string") return entry.template;
  }
  throw new TypeError(
    `The chat_template of the tokenizer_config.json beside ${path} must be a text or a list of {name, template}`,
  );
}

/** All texts that the config calls special. */
function specialTexts(config: Record<string, unknown>): string[] {
  const additional = Array.isArray(config.additional_special_tokens) ? config.additional_special_tokens : [];
  return [...Object.values(namedTokens(config)), ...additional.map(tokenText)].filter((text) =>
    text !== undefined
  );
}

/** Ids by text of the model's own vocabulary: a table, or a list of (text, score) for unigram models. */
function vocabulary({ model: { vocab } }: TokenizerJson): Map<string, number> {
  if (Array.isArray(vocab)) return new Map(vocab.map(([text], id) => [text, id]));
  return new Map(Object.entries(vocab ?? {}));
}

function tokenText(token: unknown): string | undefined {
  if (typeof token === "string") return token;
  return isObject(token) && typeof token.content === "string" ? token.content : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function readObject(path: string): Promise<Record<string, unknown> | undefined> {
  const text = await readText(path);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(`${path} is not valid JSON (${(error as Error).message}): download it again`, {
      cause: error,
    });
  }
  if (!isObject(value)) throw new TypeError(`${path} must hold a JSON object: download it again`);
  return value;
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
