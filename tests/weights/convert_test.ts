import { assertEquals } from "@std/assert";
import { converter, type Tally, targetBytes, type TargetType } from "../../lib/weights/convert.ts";
import { dtypeBits, type FloatDtype } from "../../lib/weights/dtype.ts";
import { nearestHalf } from "./half_values.ts";

/** Converts in place, as `read` does: stored elements at the end of the buffer, converted ones at its beginning. */
function convert(dtype: FloatDtype, target: TargetType, stored: Uint16Array | Uint32Array, first = 0) {
  const count = stored.length;
  const sourceBytes = dtypeBits(dtype) / 8;
  const width = Math.max(sourceBytes, targetBytes(target));
  const buffer = new ArrayBuffer(count * width);
  new Uint8Array(buffer, count * (width - sourceBytes)).set(
    new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength),
  );
  const tally: Tally = { nonFinite: 0, outOfRange: 0, underflow: 0 };
  converter(dtype, target)(buffer, count, first, tally);
  const bits = target === "f16" ? new Uint16Array(buffer, 0, count) : new Uint32Array(buffer, 0, count);
  return { bits, tally };
}

const ALL = Uint16Array.from({ length: 65536 }, (_, i) => i);
const float32Bits = (values: number[]) => new Uint32Array(Float32Array.from(values).buffer);

Deno.test("converter() from F32 to f32 copies the bits and counts what is not finite", () => {
  const stored = Uint32Array.of(0, 0x80000000, 1, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7f800001, 0xffc12345);
  const { bits, tally } = convert("F32", "f32", stored, 100);
  assertEquals(bits, stored);
  assertEquals(tally, { nonFinite: 4, firstNonFinite: 104, outOfRange: 0, underflow: 0 });
});

Deno.test("converter() from F16 to f16 copies the bits and counts what is not finite", () => {
  const { bits, tally } = convert("F16", "f16", ALL);
  assertEquals(bits, ALL);
  assertEquals(tally, { nonFinite: 2048, firstNonFinite: 0x7c00, outOfRange: 0, underflow: 0 });
});

Deno.test("converter() from F16 to f32 widens all 65536 exactly", () => {
  const { bits, tally } = convert("F16", "f32", ALL);
  const widened = new Float32Array(new Float16Array(ALL.buffer)); // the platform's own conversion
  assertEquals(new Float32Array(bits.buffer), widened);
  assertEquals(tally, { nonFinite: 2048, firstNonFinite: 0x7c00, outOfRange: 0, underflow: 0 });
});

Deno.test("converter() from BF16 to f32 makes all 65536 the upper halves of f32", () => {
  const { bits, tally } = convert("BF16", "f32", ALL);
  assertEquals(bits, Uint32Array.from(ALL, (bfloat) => bfloat * 65536));
  assertEquals(tally, { nonFinite: 256, firstNonFinite: 0x7f80, outOfRange: 0, underflow: 0 });
});

Deno.test("converter() from BF16 to f16 rounds all 65536 and counts what is lost", () => {
  const { bits, tally } = convert("BF16", "f16", ALL);
  const wanted: Tally = { nonFinite: 0, outOfRange: 0, underflow: 0 };
  const values = new Float32Array(Uint32Array.from(ALL, (bfloat) => bfloat * 65536).buffer);
  for (const [i, value] of values.entries()) {
    if (Number.isNaN(value)) assertEquals((bits[i] & 0x7fff) > 0x7c00, true);
    else if (bits[i] !== nearestHalf(value)) assertEquals(bits[i], nearestHalf(value), `of ${value}`);
    if (!Number.isFinite(value)) wanted.nonFinite++, wanted.firstNonFinite ??= i;
    else if (Math.abs(value) >= 65520) wanted.outOfRange++, wanted.firstOutOfRange ??= i;
    else if (value !== 0 && Math.abs(value) <= 2 ** -25) wanted.underflow++;
  }
  assertEquals(tally, wanted);
});

Deno.test("converter() from F32 to f16 rounds and counts what is lost", () => {
  const values = [
    0,
    -0,
    1,
    -2,
    0.1,
    65504,
    65519.99,
    65520,
    -1e9,
    Infinity,
    -Infinity,
    NaN,
    2 ** -24,
    2 ** -25,
  ];
  values.push(-(2 ** -26), 1e-45, 2 ** -25 * 1.0001);
  const { bits, tally } = convert("F32", "f16", float32Bits(values), 10);
  assertEquals(bits[11] & 0x7fff, 0x7e00);
  assertEquals(
    [...bits].filter((_, i) => i !== 11),
    values.map(Math.fround).filter((value) => !Number.isNaN(value)).map(nearestHalf),
  );
  assertEquals(tally, { nonFinite: 3, firstNonFinite: 19, outOfRange: 2, firstOutOfRange: 17, underflow: 3 });
});

Deno.test("converter() adds to the counts of the chunks before", () => {
  const tally: Tally = { nonFinite: 2, firstNonFinite: 1, outOfRange: 1, firstOutOfRange: 0, underflow: 5 };
  converter("F32", "f16")(float32Bits([NaN, 1e6, 1e-9]).buffer, 3, 50, tally);
  assertEquals(tally, { nonFinite: 3, firstNonFinite: 1, outOfRange: 2, firstOutOfRange: 0, underflow: 6 });
});
