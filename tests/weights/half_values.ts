/**
 * The values of f16 and the rounding to it, from the definition of binary16, without bit tricks.
 *
 * @module
 */

/** The value of 16 bits: sign, five bits of exponent, ten of mantissa. */
export function halfValue(half: number): number {
  const sign = half >= 0x8000 ? -1 : 1;
  const exponent = Math.floor(half / 1024) % 32;
  const mantissa = half % 1024;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/**
 * The bits of the f16 nearest to a value, ties to even, found by halving the list of all of them.
 *
 * Exact for any double but NaN: the middle between two f16 is a double.
 */
export function nearestHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  let low = 0; // is not above the result
  let high = 0x7c00; // is not below it
  while (low < high) {
    const lower = (low + high - (low + high) % 2) / 2;
    const middle = (halfValue(lower) + above(lower)) / 2;
    const up = magnitude > middle || (magnitude === middle && lower % 2 === 1);
    if (up) low = lower + 1;
    else high = lower;
  }
  return sign + low;
}

/** The next value, where 65536 stands in for infinity, as the standard has it for rounding. */
export function above(half: number): number {
  return half === 0x7bff ? 65536 : halfValue(half + 1);
}
