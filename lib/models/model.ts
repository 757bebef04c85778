// A language model: a pipeline with its tokenizer and its own defaults for generation.

import type { PipelineModel } from "../layers/mod.ts";
import type { Tokenizer } from "../text/mod.ts";

/** Sampling defaults, as `generation_config.json` gives them. */
export interface GenerationDefaults {
  /** 0 is greedy. */
  readonly temperature: number;
  /** Nucleus mass; 1 is off. */
  readonly topP: number;
  /** Number of candidates; 0 is off. */
  readonly topK: number;
  /** Share of the best candidate's probability; 0 is off. */
  readonly minP: number;
  /** Repetition penalty; 1 is off. */
  readonly repetitionPenalty: number;
  /** Ids that end a text. */
  readonly eosIds: readonly number[];
}

/** A model with what is needed to turn text into text. Free it with `using` or `dispose`. */
export interface Model extends PipelineModel, Disposable {
  /** Folder it was loaded from. */
  readonly directory: string;
  /** Its tokenizer; none runs on token ids alone. */
  readonly tokenizer?: Tokenizer;
  /** Its own sampling defaults. */
  readonly defaults: GenerationDefaults;
  /** Things worth knowing that are no errors, such as tensors that were not used. */
  readonly warnings: readonly string[];
  /** Time to load, in ms; 0 for a model that was only described. */
  readonly loadMs: number;
}
