// Sizes of heads with a recurrent state, and the chunks that a sequence's rows are cut into.

import { TILE_ROWS } from "./attention_prefill.ts";

/** Sizes that are compiled into the kernels of the delta rule and of gated linear attention. */
export interface StateHeadSizes {
  /** Numbers in a query or key of one head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Numbers in a value of one head, a multiple of 4 up to 256. */
  readonly valueSize: number;
}

/** Largest key and value size. */
const MOST = 256;

/** Throws a RangeError when a size does not fit. */
export function checkStateHeadSizes({ keySize, valueSize }: StateHeadSizes): void {
  for (const [name, size] of Object.entries({ keySize, valueSize })) {
    if (!(size >= 4 && size <= MOST && size % 4 === 0)) {
      throw new RangeError(`${name} must be a multiple of 4 from 4 to ${MOST}: current value is ${size}`);
    }
  }
}

/**
 * WGSL that finds the chunk of workgroup `group.x`: up to `size` rows from `first` on, `count` of them, within a tile.
 * Returns from `main` where a tile has no such chunk. A sequence's tiles are full but for its last one, so its chunks
 * are those that a walk over its span in steps of `size` meets.
 */
export function findChunk(size: number): string {
  const perTile = TILE_ROWS / size;
  return `let tile = tiles[group.x / ${perTile}u];
  let chunkStart = group.x % ${perTile}u * ${size}u;
  if (chunkStart >= tile.count) { return; }
  let first = tile.first + chunkStart;
  let count = min(${size}u, tile.count - chunkStart);`;
}

/** Workgroups that {@linkcode findChunk} needs for a number of tiles. */
export function chunkWorkgroups(tiles: number, size: number): number {
  return Math.max(1, tiles * TILE_ROWS / size);
}

/** Words of 4 columns of the state that a workgroup of a scan owns: those of all key components fit 8 KiB. */
export function scanWords(keySize: number): number {
  return keySize <= 128 ? 4 : 2;
}

/** How often a loop over `count` steps is unrolled: by 8, 4, 2 or 1, whatever divides it. */
export function unrollFactor(count: number): number {
  return [8, 4, 2].find((factor) => count % factor === 0) ?? 1;
}

/** Neighbouring invocations over the words of a value: a power of two from 8 to 32. */
export function outputLanes(words: number): number {
  return words <= 8 ? 8 : words <= 16 ? 16 : 32;
}
