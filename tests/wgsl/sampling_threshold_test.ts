// The kept set of top-k, top-p and min-p, exactly: for each case the test looks for seeds under which the last kept
// token wins the draw, and for seeds under which the first token left out would win if it were kept. A threshold one
// token too high or too low then gives another token than the oracle's.

import { assert, assertEquals } from "@std/assert";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import {
  oracleDraw,
  oracleGumbel,
  oracleKept,
  oracleLogits,
  oracleOrder,
  oracleScaled,
  oracleScore,
  type OracleSeed,
  type OracleSettings,
} from "../oracles/sampling.ts";
import { sampleAll, type SampledSequence, seedOf, settingsOf } from "./sampling_call.ts";

/** Pseudo-random integers below a limit, the same each time. */
function integers(seed: number): (limit: number) => number {
  let next = 0;
  let pool = randomArray(4096, seed);
  return (limit) => {
    if (next === pool.length) pool = randomArray(4096, seed += 7919), next = 0;
    return Math.min(limit - 1, Math.floor((pool[next++] + 1) / 2 * limit));
  };
}

type LogitKind = "plain" | "ties" | "equal" | "holes" | "steep" | "integers";
const KINDS: readonly LogitKind[] = ["plain", "ties", "equal", "holes", "steep", "integers"];

function logitsOf(kind: LogitKind, vocab: number, seed: number): Float32Array {
  const out = randomArray(vocab, seed, 4);
  if (kind === "ties") return out.map((z) => Math.round(z * 2) / 2);
  if (kind === "integers") return out.map((z) => Math.round(z));
  if (kind === "equal") return out.fill(-1.25);
  if (kind === "steep") return out.map((z) => 5 * z);
  if (kind === "holes") return out.map((z, i) => i % 3 === 1 ? -Infinity : i % 17 === 5 ? NaN : z);
  return out;
}

/** A seed under which `id` beats the other kept tokens by a clear margin, if one is found in reasonable time. */
function winningSeed(
  scaled: Float64Array,
  kept: Uint32Array,
  id: number,
  first: number,
  tries: number,
): OracleSeed | undefined {
  let sum = 0;
  for (const other of kept) sum += Math.exp(scaled[other]);
  const level = Math.log(sum) - 0.5;
  if (Math.exp(scaled[id]) * tries < 5 * sum) return undefined;
  for (let t = 0; t < tries; t++) {
    const seed = { seedLow: first + t, seedHigh: 5, position: 9 };
    const own = scaled[id] + oracleGumbel(seed, id);
    if (own < level) continue;
    if (kept.every((other) => other === id || oracleScore(scaled, seed, other) < own - 1e-3)) return seed;
  }
  return undefined;
}

interface Row {
  readonly sequence: SampledSequence;
  readonly scaled: Float64Array;
  readonly order: Uint32Array;
  readonly kept: { least: number; most: number };
  readonly what: string;
}

/** The rows that check one case: a draw, and where they can be found both sides of the border. */
function rowsOf(logits: Float32Array, settings: Partial<OracleSettings>, seed: number, tries: number): Row[] {
  const exact = settingsOf({ logits, settings });
  const scaled = oracleScaled(oracleLogits(logits), exact.temperature);
  const order = oracleOrder(oracleLogits(logits));
  const kept = oracleKept(scaled, order, exact);
  const what = JSON.stringify({ vocab: logits.length, ...settings, kept });
  const row = (draw: OracleSeed, side: string): Row => ({
    sequence: { logits, settings, seed: draw },
    scaled,
    order,
    kept,
    what: `${side} ${what}`,
  });
  const rows = [row({ seedLow: seed, seedHigh: 1, position: 3 }, "draw")];
  if (kept.least !== kept.most) return rows;
  const size = kept.least;
  const inside = winningSeed(scaled, order.subarray(0, size), order[size - 1], seed, tries);
  if (inside) rows.push(row(inside, "last kept"));
  if (size < order.length) {
    const outside = winningSeed(scaled, order.subarray(0, size + 1), order[size], seed, tries);
    if (outside) rows.push(row(outside, "first left out"));
  }
  return rows;
}

async function checkRows(rows: readonly Row[], subgroups: boolean): Promise<void> {
  const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
  const results = await sampleAll(gpu, rows.map((row) => row.sequence), { subgroups });
  rows.forEach(({ sequence, scaled, order, kept, what }, i) => {
    const { token } = results[i];
    const seed = seedOf(sequence);
    assert(order.subarray(0, kept.most).includes(token), `${what}: token ${token} is not among the kept`);
    const best = oracleDraw(scaled, seed, order.subarray(0, kept.least));
    const score = oracleScore(scaled, seed, token);
    assert(
      token === best.token || score >= best.score - 1e-4,
      `${what}: token ${token} (${score}) won, expected ${best.token} (${best.score})`,
    );
    assert(
      scaled[token] > -Infinity || scaled.every((z) => z === scaled[0]),
      `${what}: token ${token} has no probability`,
    );
  });
}

function randomRows(vocab: number, cases: number): Row[] {
  const below = integers(vocab);
  const pick = <T>(values: readonly T[]): T => values[below(values.length)];
  const rows: Row[] = [];
  for (let i = 0; i < cases; i++) {
    const settings: Partial<OracleSettings> = {
      temperature: pick([1, 1, 0.7, 2, 30, 1e4, 3e38, 1e-3, 1e-30]),
      topK: pick([0, 0, 1, 2, 5, 50, 255, 256, 300, Math.max(vocab - 1, 1), vocab, vocab + 10]),
      topP: pick([1, 1, 0.999, 0.9, 0.5, 0.1, 1e-6, 0]),
      minP: pick([0, 0, 0, 0.001, 0.05, 0.5, 1]),
    };
    rows.push(...rowsOf(logitsOf(pick(KINDS), vocab, 100 * vocab + i), settings, 1000 * i, 20_000));
  }
  return rows;
}

const options = { sanitizeOps: false, sanitizeResources: false };

for (const subgroups of [false, true]) {
  const how = subgroups ? "with subgroups" : "without subgroups";
  for (const [vocab, cases] of [[1, 10], [2, 60], [255, 80], [256, 80], [257, 80], [4097, 40]]) {
    Deno.test({
      name: `sample() keeps what sorting keeps, vocabulary ${vocab}, ${how}`,
      ...options,
      fn: async () => {
        const rows = randomRows(vocab, cases);
        if (vocab > 2) {
          const exact = rows.filter((row) => !row.what.startsWith("draw")).length;
          assert(exact > cases / 2, `only ${exact} rows of ${rows.length} look at a border`);
        }
        await checkRows(rows, subgroups);
      },
    });
  }

  Deno.test({
    name: `sample() keeps what sorting keeps, vocabulary 128256, ${how}`,
    ...options,
    fn: async () => {
      const vocab = 128256;
      const flat = randomArray(vocab, 3, 3);
      // About normal, as logits are.
      const peaked = randomArray(vocab, 4, 3).map((z, i) =>
        z + 2 * flat[(i * 31 + 5) % vocab] + flat[vocab - 1 - i]
      );
      const equal = new Float32Array(vocab).fill(2);
      const cases: [Float32Array, Partial<OracleSettings>][] = [
        [peaked, {}],
        [peaked, { topK: 50, topP: 0.9, temperature: 0.8 }],
        [peaked, { topP: 0.9, temperature: 0.5 }],
        [peaked, { topK: 1000, minP: 0.02 }],
        [flat, { topP: 0.5 }],
        [equal, { topK: 100_000 }],
        [equal, { topP: 0.25 }],
      ];
      const rows = cases.flatMap(([logits, settings], i) => rowsOf(logits, settings, 77 * i, 2_000_000));
      assert(rows.length > 2 * cases.length, `only ${rows.length} rows`);
      await checkRows(rows, subgroups);
    },
  });

  Deno.test({
    name: `sample() cuts equal logits at the lowest ids, ${how}`,
    ...options,
    fn: async () => {
      // Here the border is known without an oracle.
      const rows: [SampledSequence, number][] = [];
      const logits = new Float32Array(4097).fill(0.5);
      const scaled = new Float64Array(4097);
      const all = Uint32Array.from(scaled, (_, i) => i);
      for (
        const [settings, size] of [
          [{ topK: 1 }, 1],
          [{ topK: 3000 }, 3000],
          [{ topK: 4096 }, 4096],
          [{ topK: 1024, topP: 0.5 }, 512],
          [{ topK: 256, topP: 0.25, minP: 1 }, 64],
          [{ topK: 4096, topP: 0.75, temperature: 1e-20 }, 3072],
          [{ minP: 1 }, 4097],
        ] as [Partial<OracleSettings>, number][]
      ) {
        const kept = all.subarray(0, size);
        const inside = winningSeed(scaled, kept, size - 1, 1, 500_000)!;
        rows.push([{ logits, settings, seed: inside }, size - 1]);
        if (size === all.length) continue;
        const outside = winningSeed(scaled, all.subarray(0, size + 1), size, 1, 500_000)!;
        rows.push([{ logits, settings, seed: outside }, oracleDraw(scaled, outside, kept).token]);
      }
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      const results = await sampleAll(gpu, rows.map(([sequence]) => sequence), { subgroups });
      assertEquals(results.map((r) => r.token), rows.map(([, token]) => token));
    },
  });
}
