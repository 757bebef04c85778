// What the host knows of a prefill step before it is submitted, and the tables that follow from it.

/** One turn of a sequence: the tokens fed to it and what may be generated after them. */
export interface Turn {
  /** Tokens fed. */
  readonly tokens: number;
  /** Most new tokens. */
  readonly maxTokens: number;
  /** Tokens of the sequence before this turn. */
  readonly position: number;
  /** Tokens that each layer's cache keeps of those, by layer; all of them when not given. */
  readonly past?: readonly number[];
  /** Slots that they take, with evicted ones that are not reused yet, by layer; as `past` when not given. */
  readonly used?: readonly number[];
}

/** A sequence in a step. */
export interface StepSequence {
  /** Rows that the step adds to it; none when the step is about others. */
  readonly rows: number;
  /** Its turn. */
  readonly turn: Turn;
}

/** A prefill step. */
export interface Step {
  /** All sequences of the run, in order. */
  readonly sequences: readonly StepSequence[];
}

/** Sizes that bound every step of a run. */
export interface StepLimits {
  /** Most rows of a step. */
  readonly rows: number;
  /** Sequences. */
  readonly sequences: number;
  /** Most new tokens, over all sequences. */
  readonly newTokens: number;
  /** Slots in use before the run, over all sequences: of the layer with the most. */
  readonly past: number;
}

/** Where keys and values of one layer at a time stand before some of them are chosen. */
export interface StagingArena {
  /** KV heads. */
  readonly kvHeads: number;
  /** Components of a head. */
  readonly headSize: number;
}

/** Slots of a staging arena, for each KV head: what the cache has, and the rows of a step. */
export function stagingSlots(limits: StepLimits): number {
  return limits.past + limits.rows;
}

/** A table that the host writes before each prefill step. */
export interface StepTable {
  /** Words it takes at the most. */
  words(limits: StepLimits): number;
  /** Its content. */
  make(step: Step, limits: StepLimits): Uint32Array<ArrayBuffer>;
}
