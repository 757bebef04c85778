// Every flag of every command.

import { bias, type Flag, ids, number, oneOf, repeated, size, text, toggle, valued, whole } from "./flag.ts";
import { linearSwap } from "./linear.ts";
import { policy } from "./prune.ts";

const MODEL = "Model";
const PROMPT = "Prompt";
const CHOICE = "Choosing tokens";
const END = "Ending";
const SCORING = "Scoring";
const LENGTHS = "Lengths";
const OUTPUT = "Output";

/** All flags by name; help lists them in this order. */
export const FLAGS = {
  "model": valued(MODEL, "DIR", text, "Folder of the model, in Hugging Face layout; required"),
  "dtype": valued(MODEL, "f16|f32", oneOf("f16", "f32"), "Weights and cache; default f16 if the device can"),
  "memory": valued(MODEL, "SIZE", size, "Most GPU memory to use: 512MiB, 2GB, bytes; default no limit"),
  "batch-invariant": toggle(MODEL, "The same bits alone and in any batch, at some speed"),
  "linear": repeated(
    MODEL,
    "CORE",
    linearSwap,
    "Linear attention: norm-attention:layers=3-5; may be given several times",
  ),
  "prune": valued(
    MODEL,
    "POLICY",
    policy,
    "Prune the KV cache: pyramid-infer:keep=0.45; default keeps all",
  ),

  "prompt": valued(PROMPT, "TEXT", text, "The text"),
  "prompt-file": valued(PROMPT, "FILE", text, "The text in a file, as it is"),
  "prompt-ids": valued(PROMPT, "1,2,3", ids, "Token ids instead of a text"),
  "system": valued(PROMPT, "TEXT", text, "System message of a chat"),
  "chat-template": valued(PROMPT, "FILE", text, "Jinja template of a chat; default the model's own"),

  "prompt-tokens": valued(LENGTHS, "N", whole, "Tokens of the prompt; default 512 or what fits"),
  "sequences": valued(LENGTHS, "N", whole, "Prompts at once; default 1"),

  "max-tokens": valued(END, "N", whole, "Most new tokens; default 256, or what the context leaves"),
  "stop": repeated(END, "TEXT", text, "End before this text; may be given several times"),
  "ignore-eos": toggle(END, "Go on after the token that ends a text"),

  "temperature": valued(
    CHOICE,
    "X",
    number,
    "Freedom of choice; 0 takes the likeliest; default the model's, else 0",
  ),
  "top-k": valued(CHOICE, "N", whole, "Choose among the N likeliest; 0 is off"),
  "top-p": valued(
    CHOICE,
    "X",
    number,
    "Choose among the likeliest that reach this probability together; 1 is off",
  ),
  "min-p": valued(
    CHOICE,
    "X",
    number,
    "Drop what has under this share of the best one's probability; 0 is off",
  ),
  "repetition-penalty": valued(
    CHOICE,
    "X",
    number,
    "Above 1 tokens of prompt and text become less likely; 1 is off",
  ),
  "frequency-penalty": valued(CHOICE, "X", number, "Taken from a token's logit each time it came; 0 is off"),
  "presence-penalty": valued(CHOICE, "X", number, "Taken once from the logits of tokens that came; 0 is off"),
  "logit-bias": valued(CHOICE, "ID=VALUE,…", bias, "Added to logits by token id; -inf forbids one"),
  "seed": valued(CHOICE, "N", whole, "The same seed gives the same text; default drawn, and told"),

  "window": valued(SCORING, "N", whole, "Tokens of a window; default the model's context"),
  "stride": valued(SCORING, "N", whole, "Tokens from one window to the next; default half a window"),

  "context": valued(SCORING, "N", whole, "Tokens at the beginning that are not scored; default 1"),

  "logprobs": valued(
    OUTPUT,
    "N",
    whole,
    "Tell log-probabilities of each token and the N likeliest",
  ),
  "trace-kept": toggle(OUTPUT, "With --json: positions that each layer kept of the prompt"),
  "check": toggle(OUTPUT, "With --linear: perplexity of the prompt before and after the swap"),
  "json": toggle(OUTPUT, "One JSON object on stdout, at the end"),
  "quiet": toggle(OUTPUT, "Nothing on stderr but errors"),
  "debug": toggle(OUTPUT, "Print the stack trace of a failure"),
  "help": toggle(OUTPUT, "This text"),
} satisfies Record<string, Flag<unknown>>;

/** A flag's name, without its hyphens. */
export type FlagName = keyof typeof FLAGS;

/** All names. */
export const FLAG_NAMES: readonly FlagName[] = Object.keys(FLAGS) as FlagName[];

/** What was given, by flag. */
export type Values = {
  readonly [Name in FlagName]?: (typeof FLAGS)[Name] extends Flag<infer T> ? T : never;
};

/** A flag of the table without its value's type. */
export function flagOf(name: FlagName): Flag<unknown> {
  return FLAGS[name];
}

/** Whether there is a flag of this name. */
export function isFlagName(name: string): name is FlagName {
  return Object.hasOwn(FLAGS, name);
}
