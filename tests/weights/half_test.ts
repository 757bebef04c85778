import { assert, assertEquals } from "@std/assert";
import {
  floatBits,
  floatsToHalves,
  floatToHalf,
  HALF_MAX,
  halfBits,
  halfToFloat,
  halvesToFloats,
} from "../../lib/weights/half.ts";
import { above, halfValue, nearestHalf } from "./half_values.ts";

const ALL = Uint16Array.from({ length: 65536 }, (_, i) => i);
const isNaNHalf = (half: number) => (half & 0x7fff) > 0x7c00;

function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0];
}

function valueOf(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0];
}

Deno.test("halfToFloat() gives every half its value", () => {
  for (const half of ALL) {
    if (!Object.is(halfToFloat(half), halfValue(half))) assertEquals(halfToFloat(half), halfValue(half));
  }
  assertEquals(halfToFloat(0x7bff), HALF_MAX);
});

Deno.test("floatToHalf() gives every half back", () => {
  for (const half of ALL) {
    const back = floatToHalf(halfValue(half));
    assert(back === half || (isNaNHalf(back) && isNaNHalf(half)), `${half} came back as ${back}`);
  }
});

Deno.test("floatToHalf() rounds once, not by way of f32", () => {
  assertEquals(floatToHalf(1 + 2 ** -11), 0x3c00);
  assertEquals(floatToHalf(1 + 2 ** -11 + 2 ** -40), 0x3c01);
  assertEquals(floatToHalf(65520 - 2 ** -30), 0x7bff);
  assertEquals(floatToHalf(65520), 0x7c00);
  assertEquals(floatToHalf(-(2 ** -25)), 0x8000);
  assertEquals(floatToHalf(-(2 ** -25) - 2 ** -60), 0x8001);
});

Deno.test("floatBits() widens every half exactly and keeps payloads", () => {
  for (const half of ALL) {
    const bits = floatBits(half);
    if (isNaNHalf(half)) {
      assertEquals(bits, (half >>> 15) * 0x80000000 + 0x7f800000 + (half & 0x3ff) * 2 ** 13);
    } else if (bits !== bitsOf(halfValue(half))) assertEquals(bits, bitsOf(halfValue(half)));
  }
});

Deno.test("halfBits() gives every half back", () => {
  for (const half of ALL) {
    const quiet = isNaNHalf(half) ? half | 0x200 : half;
    if (halfBits(floatBits(half)) !== quiet) assertEquals(halfBits(floatBits(half)), quiet);
  }
});

Deno.test("halfBits() rounds to the nearest half on both sides of every middle, ties to even", () => {
  for (let half = 0; half < 0x7c00; half++) {
    const middle = bitsOf((halfValue(half) + above(half)) / 2);
    const even = half + half % 2;
    for (const sign of [0, 0x8000]) {
      const bits = middle + sign * 65536;
      const rounded = [bits - 1, bits, bits + 1].map(halfBits);
      const wanted = [sign + half, sign + even, sign + half + 1];
      if (rounded.some((each, i) => each !== wanted[i])) {
        assertEquals(rounded, wanted, `about ${valueOf(bits)}`);
      }
    }
  }
});

Deno.test("halfBits() agrees with the definition and with Float16Array over all exponents", () => {
  const float16 = new Float16Array(1);
  const float16Bits = new Uint16Array(float16.buffer);
  let seed = 1;
  for (let high = 0; high < 65536; high += 3) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const bits = high * 65536 + (seed >>> 16);
    const value = valueOf(bits);
    if (Number.isNaN(value)) {
      assert(isNaNHalf(halfBits(bits)));
      continue;
    }
    float16[0] = value;
    const half = halfBits(bits);
    if (half !== nearestHalf(value)) assertEquals(half, nearestHalf(value), `of ${value}`);
    if (half !== float16Bits[0]) assertEquals(half, float16Bits[0], `of ${value}, by Float16Array`);
  }
});

Deno.test("halfBits() keeps NaN a NaN whose payload has only low bits", () => {
  assertEquals(halfBits(0x7f800001), 0x7e00);
  assertEquals(halfBits(0xff800001), 0xfe00);
  assertEquals(halfBits(0x7f800000), 0x7c00);
  assertEquals(halfBits(-0x800000), 0xfc00); // the bits of -Infinity, as a signed number
});

Deno.test("floatsToHalves() and halvesToFloats() convert arrays that begin anywhere", () => {
  const values = Float32Array.of(9, 1, -0, 65520, -(2 ** -24), 0.1).subarray(1);
  const halves = floatsToHalves(values);
  assertEquals(halves, Uint16Array.of(0x3c00, 0x8000, 0x7c00, 0x8001, 0x2e66));
  assertEquals(
    halvesToFloats(halves.subarray(1)),
    Float32Array.of(-0, Infinity, -(2 ** -24), halfValue(0x2e66)),
  );
  assertEquals(floatsToHalves(halvesToFloats(ALL)), ALL.map((half) => isNaNHalf(half) ? half | 0x200 : half));
});
