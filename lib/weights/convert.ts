// Conversion of tensor elements, in place in the buffer that they were read into, counting on the way what a model
// could not work with: values that are not finite, and values that f16 cannot hold.
//
// Whole tensors pass through here, so every pair of types has its own loop over bit patterns. Typed arrays have the
// machine's byte order, which is little-endian, as the format's is, wherever Deno and WebGPU run.

import type { FloatDtype } from "./dtype.ts";
import { floatBitsTable, halfBits } from "./half.ts";

/** An element type that tensors are converted to. */
export type TargetType = "f32" | "f16";

/** Bytes of one element of the target type. */
export function targetBytes(target: TargetType): number {
  return target === "f16" ? 2 : 4;
}

/** What a conversion met. Indices are those of elements in their tensor. */
export interface Tally {
  /** Values that were NaN or infinite as stored. */
  nonFinite: number;
  /** Index of the first of them. */
  firstNonFinite?: number;
  /** Finite values that became infinite, since f16 ends at 65504. */
  outOfRange: number;
  /** Index of the first of them. */
  firstOutOfRange?: number;
  /** Values that were not zero and became zero, since f16 ends at 2^-24. */
  underflow: number;
}

/**
 * Converts `count` elements in place.
 *
 * The buffer has room for `count` elements of the wider of both types. The stored ones are at its end, so that each is
 * read before anything is written over it, and the converted ones come to its beginning.
 *
 * @param buffer Stored elements before, converted ones after.
 * @param count Number of elements.
 * @param first Index of the first element in its tensor.
 * @param tally Counts are added to it.
 */
export type Converter = (buffer: ArrayBuffer, count: number, first: number, tally: Tally) => void;

/** The conversion from one type to another. */
export function converter(dtype: FloatDtype, target: TargetType): Converter {
  return CONVERTERS[target][dtype];
}

const CONVERTERS: Record<TargetType, Record<FloatDtype, Converter>> = {
  f32: { F32: scanFloats, F16: widenHalves, BF16: widenBfloats },
  f16: { F32: narrowFloats, F16: scanHalves, BF16: narrowBfloats },
};

function scanFloats(buffer: ArrayBuffer, count: number, first: number, tally: Tally): void {
  const floats = new Int32Array(buffer, 0, count);
  for (let i = 0; i < count; i++) {
    if ((floats[i] & 0x7f800000) === 0x7f800000) addNonFinite(tally, first + i);
  }
}

function scanHalves(buffer: ArrayBuffer, count: number, first: number, tally: Tally): void {
  const halves = new Uint16Array(buffer, 0, count);
  for (let i = 0; i < count; i++) {
    if ((halves[i] & 0x7c00) === 0x7c00) addNonFinite(tally, first + i);
  }
}

function widenHalves(buffer: ArrayBuffer, count: number, first: number, tally: Tally): void {
  const halves = new Uint16Array(buffer, 2 * count, count);
  const floats = new Uint32Array(buffer, 0, count);
  const table = floatBitsTable();
  for (let i = 0; i < count; i++) {
    const half = halves[i];
    floats[i] = table[half];
    if ((half & 0x7c00) === 0x7c00) addNonFinite(tally, first + i);
  }
}

function widenBfloats(buffer: ArrayBuffer, count: number, first: number, tally: Tally): void {
  const bfloats = new Uint16Array(buffer, 2 * count, count);
  const floats = new Int32Array(buffer, 0, count);
  for (let i = 0; i < count; i++) {
    const bfloat = bfloats[i]; // the upper half of an f32
    floats[i] = bfloat << 16;
    if ((bfloat & 0x7f80) === 0x7f80) addNonFinite(tally, first + i);
  }
}

function narrowFloats(buffer: ArrayBuffer, count: number, first: number, tally: Tally): void {
  const floats = new Int32Array(buffer, 0, count);
  const halves = new Uint16Array(buffer, 0, count);
  for (let i = 0; i < count; i++) {
    const float = floats[i];
    const half = halfBits(float);
    halves[i] = half;
    if ((half & 0x7c00) === 0x7c00 || (half & 0x7fff) === 0) addLoss(tally, float, half, first + i);
  }
}

let bfloatToHalf: Uint16Array | undefined;

function narrowBfloats(buffer: ArrayBuffer, count: number, first: number, tally: Tally): void {
  const bits = new Uint16Array(buffer, 0, count);
  const table = bfloatToHalf ??= Uint16Array.from({ length: 65536 }, (_, bfloat) => halfBits(bfloat << 16));
  for (let i = 0; i < count; i++) {
    const bfloat = bits[i];
    const half = table[bfloat];
    bits[i] = half;
    if ((half & 0x7c00) === 0x7c00 || (half & 0x7fff) === 0) addLoss(tally, bfloat << 16, half, first + i);
  }
}

/** Counts an element whose f16 is zero, infinite or NaN, if it was not so as an f32. */
function addLoss(tally: Tally, float: number, half: number, index: number): void {
  if ((half & 0x7fff) === 0) {
    if ((float & 0x7fffffff) !== 0) tally.underflow++;
  } else if ((float & 0x7f800000) === 0x7f800000) {
    addNonFinite(tally, index);
  } else {
    tally.outOfRange++;
    tally.firstOutOfRange ??= index;
  }
}

function addNonFinite(tally: Tally, index: number): void {
  tally.nonFinite++;
  tally.firstNonFinite ??= index;
}
