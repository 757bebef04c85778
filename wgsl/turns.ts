// Angles position * theta that are exact at any position: a theta is a 64-bit fraction of a turn, and products are taken
// modulo a whole turn by integer arithmetic.
//
//   theta / (2 pi)  =  hi . 2^-32  +  lo . 2^-64          (mod 1)
//   position * that =  (position * hi + high word of position * lo) . 2^-32     (mod 1)
//
// The top bits of the product say in which quarter of the turn the angle is; what is left is within pi / 4 of a
// multiple of pi / 2, where short polynomials are exact to the last bits of f32. WGSL's own sin and cos promise less.

/**
 * Angles in radians a position as fractions of a turn, for the kernels that rotate by position: [angles][2], the high
 * word first. Read through a Float32Array the words are bit patterns, to be copied as bytes only.
 *
 * @throws {RangeError} when an angle is not finite.
 */
export function angleTurns(thetas: readonly number[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(thetas.length * 2);
  thetas.forEach((theta, i) => {
    if (!Number.isFinite(theta)) {
      throw new RangeError(
        `Angles must be finite: number ${i} is ${theta}, check the thetas of the checkpoint`,
      );
    }
    const turns = theta / (2 * Math.PI);
    const fraction = BigInt(Math.round((turns - Math.floor(turns)) * 2 ** 64));
    words[2 * i] = Number(BigInt.asUintN(32, fraction >> 32n));
    words[2 * i + 1] = Number(BigInt.asUintN(32, fraction));
  });
  return words;
}

/**
 * `fn sineCosine(x: f32) -> vec2<f32>`: (cos, sin) of an angle in [-pi/4, pi/4], and
 * `fn quarterTurns(quarters: u32, at: vec2<f32>) -> vec2<f32>`: (cos, sin) so many quarter turns further. Polynomials of
 * Cephes' sinf and cosf, right to 8e-8.
 */
export const SINE_COSINE = `fn sineCosine(x: f32) -> vec2<f32> {
  let z = x * x;
  let sine = fma(fma(fma(-1.9515295891e-4, z, 8.3321608736e-3), z, -1.6666654611e-1) * z, x, x);
  let cosine = fma(fma(fma(2.443315711809948e-5, z, -1.388731625493765e-3), z, 4.166664568298827e-2) * z, z,
    fma(-0.5, z, 1.0));
  return vec2<f32>(cosine, sine);
}
fn quarterTurns(quarters: u32, at: vec2<f32>) -> vec2<f32> {
  let turned = select(at, vec2<f32>(-at.y, at.x), (quarters & 1u) == 1u);
  return select(turned, -turned, (quarters & 2u) == 2u);
}
`;

/** `fn turn(turns: vec2<u32>, position: u32) -> vec2<f32>`: (cos, sin) of position times an angle of {@linkcode angleTurns}. */
export const TURNS = `${SINE_COSINE}
fn mulHigh(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}
fn turn(turns: vec2<u32>, position: u32) -> vec2<f32> {
  let fraction = position * turns.x + mulHigh(position, turns.y);
  let quarters = (fraction + 0x20000000u) >> 30u;
  let rest = bitcast<i32>(fraction - (quarters << 30u));
  return quarterTurns(quarters, sineCosine(f32(rest) * ${2 * Math.PI / 2 ** 32}));
}
`;
