// Checks of sizes that architectures share.

import type { ConfigReader } from "./architecture.ts";

/** Most token ids and positions. */
const MOST = 2 ** 24 - 1;
/** Most blocks. */
const MOST_LAYERS = 1024;

/**
 * @throws {RangeError} when a size of `config.json` is over what is supported.
 */
export function checkLimits(
  { path }: ConfigReader,
  sizes: {
    readonly layers: [string, number];
    readonly ids: [string, number];
    readonly positions: [string, number];
  },
): void {
  const { layers, ...others } = sizes;
  for (const [name, size] of Object.values(others)) {
    if (size > MOST) throw new RangeError(`${path}: ${name} is ${size}, at most ${MOST} is supported`);
  }
  if (layers[1] > MOST_LAYERS) {
    throw new RangeError(`${path}: ${layers[0]} is ${layers[1]}, at most ${MOST_LAYERS} is supported`);
  }
}

/**
 * Components of a head, `width / heads`.
 *
 * @throws {RangeError} when that is no whole number.
 */
export function headSizeOf({ path }: ConfigReader, width: [string, number], heads: [string, number]): number {
  if (width[1] % heads[1] !== 0) {
    throw new RangeError(`${path}: ${width[0]} ${width[1]} must be a multiple of ${heads[0]} ${heads[1]}`);
  }
  return width[1] / heads[1];
}

/**
 * @throws {RangeError} when kernels do not take heads of that size.
 */
export function checkHeadSize({ path }: ConfigReader, headSize: number): void {
  if (headSize % 4 !== 0 || headSize < 8 || headSize > 256) {
    throw new RangeError(`${path}: the head size must be a multiple of 4 from 8 to 256: it is ${headSize}`);
  }
}
