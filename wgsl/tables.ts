// Layout of the GPU tables that kernels share: rows of a step, extents of the cache, state and sampling settings of
// sequences. Position, slot and length are three things and stand in three places.

/** Marks an absent token id or index in a table. */
export const NONE = 0xffffffff;

/** 32-bit words of one `Row`. */
export const ROW_WORDS = 4;
/**
 * One row of a step: the token it embeds, its sequence, its original position in that sequence, and its index among
 * the rows that this step adds to the sequence, {@linkcode ABSENT_INDEX} where there is no such row.
 */
export const ROW_STRUCT = `struct Row {
  token: u32,
  sequence: u32,
  position: u32,
  index: u32,
}`;

/**
 * Index of a row that is none: of rows counted on the GPU there may be fewer than there is room for. Its slot is beyond
 * every capacity, so that nothing is stored for it; its sequence and position are those of another row.
 */
export const ABSENT_INDEX = 0x40000000;

/** 32-bit words of one `Extent`. */
export const EXTENT_WORDS = 8;
/**
 * Where a (layer, sequence, KV head) keeps its keys and values: `base` is the first slot in the arena, `capacity` how
 * many slots it owns, `start` the slot of this step's first row, `length` the slots in use with this step's rows,
 * `positions` the first entry in the tables that are kept by slot (positions, scores, sums, freed slots). Slots that were
 * evicted have position {@linkcode NONE}; they stand in a ring of `capacity` entries in the table of freed slots, from
 * entry `freeFirst` on, `freeCount` of them. Tokens of positions below `frozen` are scored for good and may be evicted; a
 * row of a position below it gets none of the freed slots.
 * Table index: (layer * sequences + sequence) * kvHeads + head.
 */
export const EXTENT_STRUCT = `struct Extent {
  base: u32,
  capacity: u32,
  start: u32,
  length: u32,
  positions: u32,
  freeFirst: u32,
  freeCount: u32,
  frozen: u32,
}`;

/** 32-bit words of one `Selection`. */
export const SELECTION_WORDS = 8;
/**
 * What a layer keeps of the rows that a step adds to a sequence: it has the `count` rows from `first` on; the newest
 * `window` of them and the first `sinks` are kept in any case, and `keep` of those before the window, sinks included.
 * The newest `scored` rows are those whose queries score. What is left stands from row `output` on.
 */
export const SELECTION_STRUCT = `struct Selection {
  first: u32,
  count: u32,
  window: u32,
  scored: u32,
  sinks: u32,
  keep: u32,
  output: u32,
  reserved: u32,
}`;

/** 32-bit words of one `Turn`. */
export const TURN_WORDS = 4;
/**
 * How a sequence's generated tokens are compressed: they are counted from `origin`, the position of the last token that
 * was fed, which has number 0; blocks have `block` of them. For the row of number r, entry `windows + r` of the table of
 * windows is how many newest tokens are protected then; bit 31 says that the block before them is compressed, of which
 * layer l keeps as many tokens as entry `keeps + l` says.
 */
export const TURN_STRUCT = `struct Turn {
  origin: u32,
  block: u32,
  windows: u32,
  keeps: u32,
}`;

/** 32-bit words of one `NucleusRule`. */
export const NUCLEUS_WORDS = 5;
/**
 * What a layer keeps of a sequence when each pass selects by a share of the attention: the newest `window` positions, and
 * of the tokens before them the best that hold `share` of the attention paid to those. Of a prompt's rows before the window
 * it keeps `least` at the least, of all tokens `minimum` while others are generated, and never more than `most`. Table
 * index: sequence * layers + layer.
 */
export const NUCLEUS_STRUCT = `struct NucleusRule {
  window: u32,
  minimum: u32,
  share: f32,
  least: u32,
  most: u32,
}`;

/** 32-bit words of one `SequenceState`. */
export const STATE_WORDS = 8;
/**
 * What the decode loop knows of a sequence: whether it is done (then nothing of it is written any more), the position
 * of the next row to feed, the token to feed there (the last sampled one), how many tokens were sampled, and how many
 * more may be.
 */
export const STATE_STRUCT = `struct SequenceState {
  done: u32,
  position: u32,
  token: u32,
  generated: u32,
  remaining: u32,
  reserved0: u32,
  reserved1: u32,
  reserved2: u32,
}`;

/** 32-bit words of one `Sampling`. */
export const SAMPLING_WORDS = 16;
/**
 * Sampling settings of a sequence. `topK` 0, `topP` 1 and `minP` 0 are off; `temperature` 0 is greedy. Stop ids are
 * `stopIds[stopFirst .. stopFirst + stopCount)`. The first `forcedCount` tokens are not sampled but taken from
 * `forced[forcedFirst ..]`.
 */
export const SAMPLING_STRUCT = `struct Sampling {
  temperature: f32,
  topP: f32,
  minP: f32,
  repetitionPenalty: f32,
  frequencyPenalty: f32,
  presencePenalty: f32,
  topK: u32,
  seedLow: u32,
  seedHigh: u32,
  stopFirst: u32,
  stopCount: u32,
  forcedFirst: u32,
  forcedCount: u32,
  reserved0: u32,
  reserved1: u32,
  reserved2: u32,
}`;

/** 32-bit words of one `Sample`. */
export const SAMPLE_WORDS = 4;
/**
 * One sampled token in the ring that the host reads: entry `sequence * ring + generated % ring`. `stopped` is 1 when
 * the token is a stop id (it is then no part of the text), 2 when it was the last one allowed, else 0. `logProbability`
 * is the natural log under the model's own distribution, `logSumExp` that of the raw logits (both 0 unless asked for).
 */
export const SAMPLE_STRUCT = `struct Sample {
  token: u32,
  stopped: u32,
  logProbability: f32,
  logSumExp: f32,
}`;

/** 32-bit words of one `Tile`. */
export const TILE_WORDS = 4;
/**
 * A tile of consecutive rows of one sequence for prefill attention: its first row, how many, the sequence, and the first
 * row of its output.
 */
export const TILE_STRUCT = `struct Tile {
  first: u32,
  count: u32,
  sequence: u32,
  output: u32,
}`;
