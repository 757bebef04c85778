// How hybrid attention lays out what it keeps and what it passes from kernel to kernel.
//
// Entry of a token and KV head, in vectors of 4:
//   [ tag | key: headSize / 4 | key features: featureSize / 4 | value: headSize / 4 ]
//
// State of a sequence, by KV head: sums over the tokens that have left the window, then the window, a ring of entries
// in which a token stands at position % window:
//   [ feature 0: sum of f v (headSize / 4), sum of f | feature 1 ... | entry 0 | entry 1 ... ]
//
// A vector of its own holds the sum of f (and three zeros), as if values had one more word that begins with a 1: so
// numerator and denominator are one and the same sum.
//
// Packed entries of a step, each with all KV heads: what the states hold of the `window` positions before a sequence's
// first row, for every sequence; then the step's rows. Seen from a sequence they are one list in the order of positions:
//
//   entry of the list     0 ... window - 1                      window ...
//   packed at             sequence * window + entry             sequences * window + first row + entry - window
//   position              first row's - window + entry          that of the row

/** Sizes of hybrid attention that kernels are compiled for. */
export interface HybridSizes {
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Features of a query or key, a multiple of 4 up to {@linkcode MAX_FEATURES}. */
  readonly featureSize: number;
  /** Positions of the softmax window, up to {@linkcode MAX_HYBRID_WINDOW}. */
  readonly window: number;
}

/** Largest window. */
export const MAX_HYBRID_WINDOW = 1024;

/** Most features. */
export const MAX_FEATURES = 1024;

/** Sizes in vectors of 4. */
export interface HybridLayout {
  /** A head. */
  readonly words: number;
  /** Features of a head. */
  readonly features: number;
  /** An entry. */
  readonly entry: number;
  /** Where an entry's features and its value begin. */
  readonly featuresAt: number;
  readonly valueAt: number;
  /** Sums of a KV head; the ring follows them. */
  readonly sums: number;
  /** State of a KV head. */
  readonly head: number;
}

/** Lays out an entry and a state. */
export function hybridLayout({ headSize, featureSize, window }: HybridSizes): HybridLayout {
  const words = headSize / 4;
  const features = featureSize / 4;
  const entry = 1 + 2 * words + features;
  const sums = featureSize * (words + 1);
  return {
    words,
    features,
    entry,
    featuresAt: 1 + words,
    valueAt: 1 + words + features,
    sums,
    head: sums + window * entry,
  };
}

/** Numbers that hybrid attention keeps of a sequence. */
export function hybridStateWords(sizes: HybridSizes & { readonly kvHeads: number }): number {
  return 4 * sizes.kvHeads * hybridLayout(sizes).head;
}

/**
 * Checks the sizes of hybrid attention.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function checkHybrid({ headSize, featureSize, window }: HybridSizes): void {
  const sizes = [["headSize", headSize, 256], ["featureSize", featureSize, MAX_FEATURES]] as const;
  for (const [name, size, most] of sizes) {
    if (!(size >= 4 && size <= most && size % 4 === 0)) {
      throw new RangeError(`${name} must be a multiple of 4 from 4 to ${most}: current value is ${size}`);
    }
  }
  if (!(Number.isInteger(window) && window >= 1 && window <= MAX_HYBRID_WINDOW)) {
    throw new RangeError(
      `window must be a whole number from 1 to ${MAX_HYBRID_WINDOW}: current value is ${window}`,
    );
  }
}

/**
 * WGSL functions over a sequence's list of packed entries. `packedAt(sequence, span, entry)` is where an entry stands;
 * `entriesUpTo(span, position)` is how many entries have positions up to one that may be negative. They need
 * `params.sequences` and the function `rowsBefore`.
 */
export function packedEntries(window: number): string {
  return `fn packedAt(sequence: u32, span: vec2<u32>, entry: u32) -> u32 {
  return select(
    params.sequences * ${window}u + span.x + entry - ${window}u,
    sequence * ${window}u + entry,
    entry < ${window}u,
  );
}
fn entriesUpTo(span: vec2<u32>, position: i32) -> u32 {
  let start = i32(rowTable[span.x].position);
  if (position >= start) { return ${window}u + rowsBefore(span, u32(position) + 1u); }
  return u32(max(position - start + ${window + 1}, 0));
}`;
}
