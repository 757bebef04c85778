// Flags as options of the library.

import type { GenerateOptions, Model } from "../../mod.ts";
import { WrongCall } from "./errors.ts";
import type { FlagName, Values } from "./flags.ts";

/** Flags of the commands that load a model. */
export const MODEL_FLAGS = [
  "model",
  "dtype",
  "memory",
  "linear",
  "prune",
] as const satisfies readonly FlagName[];

/** Flags that give one prompt. */
export const PROMPT_FLAGS = ["prompt", "prompt-file", "prompt-ids"] as const satisfies readonly FlagName[];

/** Flags that say how tokens are chosen and when to stop. */
export const GENERATE_FLAGS = [
  "batch-invariant",
  "max-tokens",
  "stop",
  "ignore-eos",
  "temperature",
  "top-k",
  "top-p",
  "min-p",
  "repetition-penalty",
  "frequency-penalty",
  "presence-penalty",
  "logit-bias",
  "seed",
] as const satisfies readonly FlagName[];

/** Options of generation that the flags give; what was not given is left to the model. */
export function generateOptions(values: Values, model: Model): GenerateOptions {
  if (values.stop && !model.tokenizer) {
    throw new WrongCall("--stop needs a tokenizer, and this model has none: leave it out");
  }
  return {
    maxTokens: values["max-tokens"],
    temperature: values.temperature,
    topK: values["top-k"],
    topP: values["top-p"],
    minP: values["min-p"],
    repetitionPenalty: values["repetition-penalty"],
    frequencyPenalty: values["frequency-penalty"],
    presencePenalty: values["presence-penalty"],
    logitBias: values["logit-bias"],
    seed: values.seed,
    stop: values.stop,
    ignoreEos: values["ignore-eos"],
    logprobs: values.logprobs,
    batchInvariant: values["batch-invariant"],
  };
}
