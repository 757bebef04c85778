// When blocks of generated tokens are compressed, and how far a layer's cache grows until then. Lengths alone decide.

/** What the blocks of a turn depend on. Lengths are those of layer 0, with the slots of earlier turns. */
export interface BlockSettings {
  /** Share of layer 0's length that is the recent window. */
  readonly recentRatio: number;
  /** Tokens of a block. */
  readonly block: number;
  /** Tokens that layer 0 keeps of a block. */
  readonly keep: number;
  /** Slots of layer 0 after the prompt. */
  readonly length: number;
  /** Most slots of layer 0. */
  readonly cap: number;
  /** Newest rows that the prompt protected. */
  readonly window: number;
  /** Most new tokens of the turn. */
  readonly maxTokens: number;
}

/** The blocks of a turn. */
export interface DecodeBlocks {
  /** Numbers of the rows that close a block, ascending, up to maxTokens. */
  readonly closes: readonly number[];
  /** Most newest tokens that an eviction between two rows of the turn must spare. */
  readonly spared: number;
}

/** The bit of an entry of `windows` that says a block is compressed. */
export const BLOCK_BIT = 0x80000000;

/**
 * Follows layer 0 over the rows 1 to maxTokens of a turn. Row r closes a block when, after it was appended, as many
 * tokens as a block has stand between the newest R' and the mark; R' = floor(recentRatio (length before the row + 1)).
 * The mark of each layer stands R' before its end after a block, so all layers close blocks at the same rows.
 *
 * @param windows where given, entry r gets 1 + R', with BLOCK_BIT where a block closes
 */
export function decodeBlocks(settings: BlockSettings, windows?: Uint32Array): DecodeBlocks {
  const { recentRatio, block, keep, cap, maxTokens } = settings;
  const closes: number[] = [];
  const lastEviction = maxTokens - 2; // The last row that another one follows.
  let length = settings.length;
  let pending = 0; // Tokens behind the mark; evictions before it change nothing here.
  let spared = settings.window;
  if (windows) windows[0] = settings.window;
  // A row that finds its layer full evicts a token first.
  const recentAt = (step: number): number => Math.floor(recentRatio * Math.min(length + step, cap));
  for (let row = 0; row < maxTokens;) {
    // Rows to the next close: the least step of pending + step - R'(step) >= block. R' never falls meanwhile, so
    // steps that are too few lead up to it.
    let step = 1;
    for (;;) {
      const needed = block - pending + recentAt(step);
      if (needed <= step) break;
      step = needed;
    }
    const recent = recentAt(step);
    if (windows) {
      const end = Math.min(step, maxTokens - row + 1);
      for (let ahead = 1; ahead < end; ahead++) windows[row + ahead] = 1 + recentAt(ahead);
    }
    const before = Math.min(step - 1, lastEviction - row);
    if (before > 0) spared = Math.max(spared, 1 + pending + before, 1 + recentAt(before));
    row += step;
    if (row > maxTokens) break;
    if (row <= lastEviction) spared = Math.max(spared, 1 + recent);
    if (windows) windows[row] = 1 + recent + BLOCK_BIT;
    closes.push(row);
    length = Math.min(length + step, cap) - (block - keep);
    pending = recent;
  }
  return { closes, spared };
}

/**
 * Most slots by which a layer that evicts nothing outgrows its prompt: the last row that is fed is maxTokens - 1, and a
 * block's tokens are all there until the row that closes it has run.
 *
 * @param dropped tokens that the layer drops of a block
 */
export function decodeRise(closes: readonly number[], dropped: number, maxTokens: number): number {
  const last = Math.max(0, maxTokens - 1);
  let rise = 0;
  let before = 0;
  for (const row of closes) {
    if (row > last) break;
    rise = Math.max(rise, row - before * dropped);
    before++;
  }
  return Math.max(rise, last - before * dropped);
}
