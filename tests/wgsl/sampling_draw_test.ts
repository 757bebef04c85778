// The draw itself: the noise of each token, the distribution of many draws, and that a token depends on its seed and
// position alone.

import { assert, assertEquals } from "@std/assert";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import {
  oracleGumbel,
  oracleKept,
  oracleLogits,
  oracleOrder,
  oraclePcg4d,
  oracleScaled,
  type OracleSeed,
  type OracleSettings,
} from "../oracles/sampling.ts";
import { sampleAll, type SampledSequence, settingsOf } from "./sampling_call.ts";

const options = { sanitizeOps: false, sanitizeResources: false };
const gpuOf = (subgroups: boolean) => sharedGpu({ withoutSubgroups: !subgroups });

/** Upper bound that a chi-square value of these degrees of freedom passes once in 10,000 times (Wilson-Hilferty). */
function chiSquareLimit(degrees: number): number {
  const spread = 2 / (9 * degrees);
  return degrees * (1 - spread + 3.719 * Math.sqrt(spread)) ** 3;
}

/** Chi-square of counted draws against probabilities, rare tokens taken together. */
function chiSquare(counts: readonly number[], probabilities: readonly number[]): [number, number] {
  const draws = counts.reduce((a, b) => a + b, 0);
  let value = 0, degrees = -1, restCount = 0, rest = 0;
  const add = (count: number, expected: number): void => {
    value += (count - expected) ** 2 / expected;
    degrees++;
  };
  counts.forEach((count, i) => {
    const expected = draws * probabilities[i];
    if (expected >= 10) add(count, expected);
    else restCount += count, rest += expected;
  });
  if (rest >= 1) add(restCount, rest);
  return [value, degrees];
}

for (const subgroups of [false, true]) {
  const how = subgroups ? "with subgroups" : "without subgroups";

  Deno.test({
    name: `sample() adds the noise of the hash to 1e-5, in the tails too, ${how}`,
    ...options,
    fn: async () => {
      // Two tokens, and the second's logit just above or below what would tie them under the noise of the seed.
      const seeds: OracleSeed[] = [];
      for (let i = 0; i < 600; i++) seeds.push({ seedLow: i, seedHigh: 0xffffffff - i, position: 7 * i });
      let low = 0, high = 0;
      for (let seedLow = 0; low < 100 || high < 100; seedLow++) {
        const h = oraclePcg4d([seedLow, 3, 11, 0])[3];
        if (h >= 2 ** 18 && h < 2 ** 32 - 2 ** 18) continue;
        h < 2 ** 18 ? low++ : high++;
        seeds.push({ seedLow, seedHigh: 3, position: 11 });
      }
      const sequences: SampledSequence[] = [];
      const expected: number[] = [];
      for (const seed of seeds) {
        const tie = oracleGumbel(seed, 0) - oracleGumbel(seed, 1);
        for (const delta of [-1e-5, 1e-5]) {
          sequences.push({ logits: Float32Array.of(0, tie + delta), seed });
          expected.push(delta > 0 ? 1 : 0);
        }
      }
      const tokens = (await sampleAll(await gpuOf(subgroups), sequences, { subgroups })).map((r) => r.token);
      assertEquals(tokens, expected);
    },
  });

  Deno.test({
    name: `sample() draws by the distribution, ${how}`,
    ...options,
    fn: async () => {
      const vocab = 40;
      const logits = randomArray(vocab, 11, 2.5);
      const check = async (
        settings: Partial<OracleSettings>,
        draws: number,
        seed: (i: number) => Partial<OracleSeed>,
      ): Promise<void> => {
        const exact = settingsOf({ logits, settings });
        const scaled = oracleScaled(oracleLogits(logits), exact.temperature);
        const order = oracleOrder(oracleLogits(logits));
        const { least, most } = oracleKept(scaled, order, exact);
        assertEquals(least, most);
        const weights = new Array<number>(vocab).fill(0);
        for (const id of order.subarray(0, least)) weights[id] = Math.exp(scaled[id]);
        const total = weights.reduce((a, b) => a + b);
        const sequences = Array.from({ length: draws }, (_, i) => ({ logits, settings, seed: seed(i) }));
        const counts = new Array<number>(vocab).fill(0);
        for (const { token } of await sampleAll(await gpuOf(subgroups), sequences, { subgroups, ring: 1 })) {
          counts[token]++;
        }
        weights.forEach((weight, i) => assert(weight > 0 || counts[i] === 0, `token ${i} was cut off`));
        const [value, degrees] = chiSquare(counts, weights.map((weight) => weight / total));
        assert(
          value < chiSquareLimit(degrees),
          `chi-square ${value} with ${degrees} degrees of freedom for ${JSON.stringify(settings)}`,
        );
      };
      await check({}, 20_000, (i) => ({ seedLow: 42, position: i + 1 }));
      await check({ temperature: 1.5 }, 5_000, (i) => ({ seedLow: i, position: 17 }));
      await check({ temperature: 0.8, topK: 20, topP: 0.9, minP: 0.02 }, 4_000, (i) => ({
        seedLow: 1,
        seedHigh: i << 12,
        position: 2,
      }));
    },
  });

  Deno.test({
    name: `sample() draws neighbouring positions independently, ${how}`,
    ...options,
    fn: async () => {
      const logits = new Float32Array(6);
      const sequences = Array.from({ length: 10_001 }, (_, i) => ({ logits, seed: { position: i + 1 } }));
      const results = await sampleAll(await gpuOf(subgroups), sequences, { subgroups, ring: 1 });
      const pairs = new Array<number>(36).fill(0);
      for (let i = 1; i < results.length; i++) pairs[6 * results[i - 1].token + results[i].token]++;
      const [value, degrees] = chiSquare(pairs, new Array(36).fill(1 / 36));
      assert(value < chiSquareLimit(degrees), `chi-square ${value} with ${degrees} degrees of freedom`);
    },
  });

  Deno.test({
    name: `sample() depends on seed and position, not on the row or its neighbours, ${how}`,
    ...options,
    fn: async () => {
      const gpu = await gpuOf(subgroups);
      const vocab = 1000;
      const sequence = (n: number): SampledSequence => ({
        logits: randomArray(vocab, 500 + n % 3, 2),
        settings: { temperature: 1.3, ...(n % 3 === 1 ? { topK: 40 } : n % 3 === 2 ? { topP: 0.8 } : {}) },
        seed: { seedLow: 1000 + n, position: 20 + n },
      });
      const many = Array.from({ length: 20 }, (_, n) => sequence(n));
      const tokens = (await sampleAll(gpu, many, { subgroups })).map((r) => r.token);
      const reversed = (await sampleAll(gpu, many.toReversed(), { subgroups })).map((r) => r.token);
      assertEquals(reversed.toReversed(), tokens);
      // A folded grid that overshoots the rows.
      const folded = await sampleAll(gpu, many, { subgroups, grid: [7, 3, 1] });
      assertEquals(folded.map((r) => r.token), tokens);
      for (let n = 0; n < 6; n++) {
        assertEquals((await sampleAll(gpu, [many[n]], { subgroups }))[0].token, tokens[n]);
      }
      assert(new Set(tokens).size > 10, "the draws hardly differ");
    },
  });
}
