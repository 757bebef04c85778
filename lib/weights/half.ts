// 16-bit floats (IEEE 754 binary16) as bit patterns. WGSL calls them f16, checkpoints F16.
//
// The bits are worked out here rather than through Float16Array, so that a conversion can count what it loses in the
// same pass over the data (see convert.ts), at the same speed.

/** Largest finite f16. */
export const HALF_MAX = 65504;

const scratch = new Float16Array(1);
const scratchBits = new Uint16Array(scratch.buffer);

/**
 * The f16 nearest to a number, ties to even, as its 16 bits.
 *
 * Rounds the number once, not first to f32. From 65520 on it is infinity; NaN stays NaN.
 */
export function floatToHalf(value: number): number {
  scratch[0] = value;
  return scratchBits[0];
}

/** The value of an f16, given as its 16 bits. Exact. */
export function halfToFloat(half: number): number {
  scratchBits[0] = half;
  return scratch[0];
}

/** Rounds floats to f16 bits, ties to even. */
export function floatsToHalves(floats: Float32Array): Uint16Array<ArrayBuffer> {
  const halves = new Uint16Array(floats.length);
  const bits = new Int32Array(floats.buffer, floats.byteOffset, floats.length);
  for (let i = 0; i < bits.length; i++) halves[i] = halfBits(bits[i]);
  return halves;
}

/** The values of f16 bits. Exact. */
export function halvesToFloats(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const floats = new Float32Array(halves.length);
  const bits = new Uint32Array(floats.buffer);
  const table = floatBitsTable();
  for (let i = 0; i < bits.length; i++) bits[i] = table[halves[i]];
  return floats;
}

/**
 * Rounds an f32 to f16, bits to bits, ties to even, with subnormals.
 *
 * A NaN stays a NaN with its sign and the upper bits of its payload, made quiet.
 *
 * @param float The 32 bits of an f32, signed or unsigned.
 */
export function halfBits(float: number): number {
  const sign = (float >>> 16) & 0x8000;
  const magnitude = float & 0x7fffffff;
  if (magnitude >= 0x38800000) { // at least 2^-14: normal in f16, or too large for it
    if (magnitude < 0x47800000) { // below 2^16: move the exponent; rounding up may carry into it, up to infinity
      return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
    }
    return sign | (magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >>> 13) & 0x3ff) : 0x7c00);
  }
  if (magnitude < 0x33000000) return sign; // below 2^-25, half of the smallest subnormal
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - (magnitude >>> 23); // 14 to 24: brings the last bit to 2^-24
  const kept = mantissa >>> shift;
  const lost = mantissa & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  return sign | (kept + (lost > middle || (lost === middle && (kept & 1) === 1) ? 1 : 0));
}

/**
 * Widens an f16 to f32, bits to bits. Exact; a NaN keeps its payload.
 *
 * @param half The 16 bits of an f16.
 */
export function floatBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (mantissa << 13)) >>> 0;
  if (exponent > 0) return (sign | ((exponent + 112) << 23) | (mantissa << 13)) >>> 0;
  if (mantissa === 0) return sign >>> 0;
  const shift = Math.clz32(mantissa) - 21; // brings the leading bit to where f32 hides it
  return (sign | ((113 - shift) << 23) | (((mantissa << shift) & 0x3ff) << 13)) >>> 0;
}

let widened: Uint32Array | undefined;

/** `floatBits` of every f16, made at the first call: twice as fast as Float16Array where whole tensors are widened. */
export function floatBitsTable(): Uint32Array {
  return widened ??= Uint32Array.from({ length: 65536 }, (_, half) => floatBits(half));
}
