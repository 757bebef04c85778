import { assertEquals } from "@std/assert";
import { decodeUtf8, incompleteTail } from "../../lib/text/utf8.ts";

Deno.test("incompleteTail() counts the bytes of every begun character, and none of a whole one", () => {
  for (
    const character of ["a", "é", "€", "한", "\ud7ff", "\ue000", "\uffff", "🙂", "\u{10ffff}", "\u{10000}"]
  ) {
    const bytes = new TextEncoder().encode("x" + character);
    for (let length = 1; length <= bytes.length; length++) {
      const expected = length === bytes.length ? 0 : length - 1;
      assertEquals(
        incompleteTail(bytes.subarray(0, length)),
        expected,
        `${character}, ${length - 1} bytes of it`,
      );
    }
  }
});

Deno.test("incompleteTail() counts no bytes that nothing can complete", () => {
  for (
    const bytes of [
      [],
      [0x80],
      [0xc0],
      [0xc1],
      [0xf5],
      [0xff],
      [0xe0, 0x80], // overlong
      [0xf0, 0x8f, 0xbf], // overlong
      [0xed, 0xa0], // half of a surrogate
      [0xf4, 0x90], // above U+10FFFF
      [0xc3, 0x28],
      [0x80, 0x80, 0x80, 0x80],
      [0xe2, 0x82, 0xac, 0x80],
    ]
  ) {
    assertEquals(incompleteTail(Uint8Array.from(bytes)), 0, `[${bytes}]`);
  }
});

Deno.test("incompleteTail() agrees with the platform's streaming decoder on every sequence of three bytes", () => {
  const edges = [
    0x00,
    0x7f,
    0x80,
    0x8f,
    0x90,
    0x9f,
    0xa0,
    0xbf,
    0xc0,
    0xc1,
    0xc2,
    0xdf,
    0xe0,
    0xe1,
    0xec,
    0xed,
  ];
  edges.push(0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff);
  for (const a of edges) {
    for (const b of edges) {
      for (const c of edges) {
        const bytes = Uint8Array.of(a, b, c);
        const streamed = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes, { stream: true });
        const whole = bytes.subarray(0, 3 - incompleteTail(bytes));
        assertEquals(decodeUtf8(whole), streamed, `[${bytes}]`);
      }
    }
  }
});

Deno.test("decodeUtf8() keeps a byte order mark", () => {
  assertEquals(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61)), "\ufeffa");
});
