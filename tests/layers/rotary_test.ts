import { assertAlmostEquals, assertEquals, assertLess, assertThrows } from "@std/assert";
import { rotaryEmbedding, rotaryFrequencies, type RotaryOptions } from "../../lib/layers/mod.ts";
import { llamaFrequencies } from "../oracles/llama.ts";
import { randomLlama } from "../harness/random_llama.ts";

/** Llama 3.1 8B, from its config.json. */
const LLAMA_31: RotaryOptions = {
  theta: 500_000,
  size: 128,
  positions: 131_072,
  scaling: {
    type: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContext: 8192,
  },
};

Deno.test("rotaryFrequencies() without scaling is θ^(-2i/size)", () => {
  const options: RotaryOptions = { theta: 10_000, size: 8, positions: 1 };
  const got = rotaryFrequencies(options);
  [1, 0.1, 0.01, 0.001].forEach((want, i) => assertAlmostEquals(got[i], want, 1e-15));
  assertEquals(rotaryFrequencies({ ...options, scaling: { type: "none" } }), got);
});

Deno.test("rotaryFrequencies() with linear scaling divides all by the factor", () => {
  const got = rotaryFrequencies({
    theta: 10_000,
    size: 8,
    positions: 1,
    scaling: { type: "linear", factor: 4 },
  });
  [0.25, 0.025, 0.0025, 0.00025].forEach((want, i) => assertAlmostEquals(got[i], want, 1e-15));
});

Deno.test("rotaryFrequencies() with Llama 3 scaling keeps high ones, divides low ones and ramps between", () => {
  const got = rotaryFrequencies(LLAMA_31);
  const plain = (i: number) => 500_000 ** (-i / 64);
  // A pair of 8192 / wavelength turns: 4 or more are kept, 1 or less divided by 8. By hand: pair 28 makes 4.19 turns,
  // pair 29 makes 3.41, pair 34 makes 1.22 and pair 35 makes 0.996.
  for (const [pair, turns] of [[28, 4.19], [29, 3.41], [34, 1.22], [35, 0.996]]) {
    assertAlmostEquals(8192 * plain(pair) / (2 * Math.PI), turns, 0.006);
  }
  for (let i = 0; i <= 28; i++) assertEquals(got[i], plain(i));
  for (let i = 35; i < 64; i++) assertEquals(got[i], plain(i) / 8);
  // Pair 32: 1/√500000 = 1.4142136e-3, 1.843848 turns, a share of 0.2812826 kept: 3.977937e-4 + 0.7187174 · 1.767767e-4.
  assertAlmostEquals(got[32], 5.248462e-4, 1e-10);
  for (let i = 1; i < 64; i++) assertLess(got[i], got[i - 1]);
});

Deno.test("rotaryFrequencies() agrees with the oracle's turns for other scalings", () => {
  for (const [factor, low, high, original] of [[8, 1, 4, 8192], [32, 1, 4, 8192], [2, 0.5, 6, 64]]) {
    const { config } = randomLlama({
      head_dim: 96,
      rope_theta: 10_000,
      rope_scaling: {
        rope_type: "llama3",
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
      },
    });
    const got = rotaryFrequencies({
      theta: 10_000,
      size: 96,
      positions: 1,
      scaling: {
        type: "llama3",
        factor,
        lowFrequencyFactor: low,
        highFrequencyFactor: high,
        originalContext: original,
      },
    });
    llamaFrequencies(config).forEach((want, i) => assertLess(Math.abs(got[i] / want - 1), 1e-12));
  }
});

Deno.test("rotaryEmbedding() names tables apart that differ, and alike that do not", () => {
  const same = rotaryEmbedding(LLAMA_31);
  assertEquals(rotaryEmbedding({ ...LLAMA_31 }).name, same.name);
  assertEquals([same.layout, same.size, same.positions, same.frequencies.length], ["half", 128, 131_072, 64]);
  const others: RotaryOptions[] = [
    { ...LLAMA_31, theta: 10_000 },
    { ...LLAMA_31, size: 64 },
    { ...LLAMA_31, positions: 4096 },
    { ...LLAMA_31, layout: "interleaved" },
    { ...LLAMA_31, scaling: { type: "none" } },
    { ...LLAMA_31, scaling: { type: "linear", factor: 8 } },
    { ...LLAMA_31, scaling: { ...LLAMA_31.scaling!, type: "llama3", factor: 4 } as RotaryOptions["scaling"] },
  ];
  const names = new Set([same, ...others.map(rotaryEmbedding)].map(({ name }) => name));
  assertEquals(names.size, others.length + 1);
});

Deno.test("rotaryEmbedding() refuses sizes and bases that are none", () => {
  for (const size of [0, 3, -2, 2.5, NaN]) {
    assertThrows(
      () => rotaryEmbedding({ ...LLAMA_31, size }),
      RangeError,
      `Rotary size must be even and at least 2: current value is ${size}`,
    );
  }
  for (const theta of [0, -1, NaN]) {
    assertThrows(() => rotaryEmbedding({ ...LLAMA_31, theta }), RangeError, "Rotary theta must be positive");
  }
});
