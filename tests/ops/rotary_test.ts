import { assertEquals, assertLess } from "@std/assert";
import { FINE_POSITIONS, type Rotary, rotaryTable } from "../../lib/ops/mod.ts";
import { rotaryFrequencies } from "../oracles/attention.ts";

function rotary(positions: number, frequencies: ArrayLike<number>): Rotary {
  return {
    name: "r",
    layout: "half",
    size: frequencies.length * 2,
    frequencies: Array.from(frequencies),
    positions,
  };
}

/** cos and sin at a position as the kernel has them: f32 numbers of the table, combined by the addition formulas. */
function turn(table: Float32Array, pairs: number, position: number, pair: number): [number, number] {
  const entry = (row: number) => table.subarray((row * pairs + pair) * 2, (row * pairs + pair) * 2 + 2);
  const [c1, s1] = entry(position % FINE_POSITIONS);
  const [c2, s2] = entry(FINE_POSITIONS + Math.floor(position / FINE_POSITIONS));
  const product = (a: number, b: number) => Math.fround(a * b);
  return [
    Math.fround(product(c1, c2) - product(s1, s2)),
    Math.fround(product(s1, c2) + product(c1, s2)),
  ];
}

Deno.test("rotaryTable() is as exact at position 1,048,575 as at position 1", () => {
  for (const theta of [10_000, 500_000]) {
    const frequencies = rotaryFrequencies(64, theta);
    const table = rotaryTable(rotary(2 ** 20, frequencies));
    let worst = 0;
    for (
      const position of [0, 1, 255, 256, 257, 4095, 65_535, 65_536, 131_071, 524_288, 777_777, 1_048_575]
    ) {
      frequencies.forEach((frequency, pair) => {
        const [cos, sin] = turn(table, frequencies.length, position, pair);
        worst = Math.max(
          worst,
          Math.abs(cos - Math.cos(position * frequency)),
          Math.abs(sin - Math.sin(position * frequency)),
        );
      });
    }
    // Four rounded numbers, two rounded products and a rounded sum make less than 3 of these units.
    assertLess(worst, 4 * 2 ** -24);
  }
});

Deno.test("rotaryTable() covers the positions that are asked for, and no more than a row over", () => {
  for (const [positions, rows] of [[1, 257], [256, 257], [257, 258], [512, 258], [1000, 260], [0, 257]]) {
    assertEquals(rotaryTable(rotary(positions, [1, 0.5])).length, rows * 2 * 2, `${positions} positions`);
  }
});
