// Options of generation: their meaning, defaults and ranges. Everything is checked before anything runs.

import { MAX_TOP_LOG_PROBABILITIES } from "../../wgsl/log_probabilities.ts";
import type { Model } from "../models/mod.ts";

/** How tokens are chosen and when to stop. Defaults of the sampling options come from the model's own configuration. */
export interface GenerateOptions {
  /** Most new tokens. Default: 256, or what the context leaves. */
  readonly maxTokens?: number;
  /** 0 is greedy, with ties to the lowest id. */
  readonly temperature?: number;
  /** Keeps the likeliest tokens whose mass reaches this; 1 is off. */
  readonly topP?: number;
  /** Keeps this many tokens; 0 is off. */
  readonly topK?: number;
  /** Keeps tokens of at least this share of the likeliest one's probability; 0 is off. */
  readonly minP?: number;
  /** Divides positive and multiplies negative logits of tokens in prompt or text; 1 is off. */
  readonly repetitionPenalty?: number;
  /** Subtracted once for each time a token was generated; 0 is off. */
  readonly frequencyPenalty?: number;
  /** Subtracted from tokens that were generated; 0 is off. */
  readonly presencePenalty?: number;
  /** Added to logits, by token id. */
  readonly logitBias?: Readonly<Record<number, number>>;
  /** A token depends on the seed and its position alone. Default: drawn, and told in the record. */
  readonly seed?: number;
  /** Strings that end the text before them. */
  readonly stop?: string | readonly string[];
  /** Token ids that end the text. Default: the model's end-of-sequence ids. */
  readonly stopIds?: readonly number[];
  /** Goes on after end-of-sequence ids. */
  readonly ignoreEos?: boolean;
  /** Natural log-probabilities, under the model's own distribution, of the chosen and the top n tokens. */
  readonly logprobs?: number;
  /** Whether BOS is set before a text. Default: as the tokenizer says. */
  readonly bos?: boolean;
  /** Jinja source of a chat template, for prompts that are messages. Default: the model's own. */
  readonly chatTemplate?: string;
  /** One kernel family whatever the row count: the same bits alone and in any batch. */
  readonly batchInvariant?: boolean;
  /** Ends generation; what is written so far is kept. */
  readonly signal?: AbortSignal;
  /** Decode steps of a submit. Default: as many as keep the device busy while the host reads. Never changes a bit. */
  readonly runAhead?: number;
  /** Tells which positions each layer kept after the prompt. */
  readonly traceKept?: boolean;
  /** Times every kernel by timestamps and tells the sums in the record; slower. */
  readonly timings?: boolean;
}

/** Options after defaults and checks. */
export interface ResolvedOptions {
  readonly maxTokens: number | undefined;
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly seed: number;
  readonly stop: readonly string[];
  readonly stopIds: readonly number[];
  readonly logprobs: number | undefined;
  readonly batchInvariant: boolean;
  readonly signal: AbortSignal | undefined;
  readonly runAhead: number | undefined;
  readonly timings: boolean;
  readonly traceKept: boolean;
  /** Whether some setting edits logits by token. */
  readonly edits: boolean;
}

/** Most stop ids of a run. */
export const MAX_STOP_IDS = 64;
/** Most decode steps of a submit. */
export const MAX_RUN_AHEAD = 64;

function number(name: string, value: number, low: number, high: number, whole = false): number {
  if (typeof value !== "number" || !(value >= low && value <= high) || (whole && !Number.isInteger(value))) {
    const range = high === Infinity ? `at least ${low}` : `from ${low} to ${high}`;
    throw new RangeError(
      `${name} must be ${whole ? "a whole number " : ""}${range}: current value is ${value}`,
    );
  }
  return value;
}

function finite(name: string, value: number): number {
  return number(name, value, -1e6, 1e6);
}

/**
 * Fills in defaults and checks ranges.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function resolveOptions(model: Model, options: GenerateOptions): ResolvedOptions {
  const { defaults, config } = model;
  const vocabulary = config.vocabularySize;
  const bias = new Map<number, number>();
  for (const [id, value] of Object.entries(options.logitBias ?? {})) {
    const token = number(`logitBias id ${id}`, Number(id), 0, vocabulary - 1, true);
    // -Infinity forbids a token.
    bias.set(token, value === -Infinity ? value : finite(`logitBias of token ${id}`, value));
  }
  const stop = options.stop === undefined
    ? []
    : typeof options.stop === "string"
    ? [options.stop]
    : options.stop;
  if (stop.some((text) => typeof text !== "string" || text === "")) {
    throw new RangeError("stop must be strings of at least one character");
  }
  if (stop.length && !model.tokenizer) {
    throw new RangeError("stop needs a tokenizer, and this model has none: use stopIds");
  }
  const stopIds = options.stopIds ?? (options.ignoreEos ? [] : defaults.eosIds);
  for (const id of stopIds) number("stopIds", id, 0, 2 ** 32 - 2, true);
  if (stopIds.length > MAX_STOP_IDS) {
    throw new RangeError(`At most ${MAX_STOP_IDS} stop ids are supported: ${stopIds.length} were given`);
  }
  const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  const resolved = {
    maxTokens: options.maxTokens === undefined
      ? undefined
      : number("maxTokens", options.maxTokens, 1, 2 ** 31, true),
    temperature: number("temperature", options.temperature ?? defaults.temperature, 0, 1000),
    topP: number("topP", options.topP ?? defaults.topP, 0, 1),
    topK: number("topK", options.topK ?? defaults.topK, 0, 2 ** 31, true),
    minP: number("minP", options.minP ?? defaults.minP, 0, 1),
    repetitionPenalty: number(
      "repetitionPenalty",
      options.repetitionPenalty ?? defaults.repetitionPenalty,
      1e-3,
      1e3,
    ),
    frequencyPenalty: finite("frequencyPenalty", options.frequencyPenalty ?? 0),
    presencePenalty: finite("presencePenalty", options.presencePenalty ?? 0),
    logitBias: bias,
    seed: number("seed", seed, 0, Number.MAX_SAFE_INTEGER, true),
    stop,
    stopIds,
    logprobs: options.logprobs === undefined
      ? undefined
      : number("logprobs", options.logprobs, 0, Math.min(MAX_TOP_LOG_PROBABILITIES, vocabulary), true),
    batchInvariant: options.batchInvariant ?? false,
    signal: options.signal,
    timings: options.timings ?? false,
    traceKept: options.traceKept ?? false,
    runAhead: options.runAhead === undefined
      ? undefined
      : number("runAhead", options.runAhead, 1, MAX_RUN_AHEAD, true),
  };
  return {
    ...resolved,
    edits: bias.size > 0 || resolved.repetitionPenalty !== 1 || resolved.frequencyPenalty !== 0 ||
      resolved.presencePenalty !== 0,
  };
}
