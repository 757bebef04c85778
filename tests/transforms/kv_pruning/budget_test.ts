import { assert, assertEquals, assertThrows } from "@std/assert";
import { solveBudget } from "../../../lib/transforms/kv_pruning/budget.ts";
import { leastSlots } from "../../../lib/transforms/kv_pruning/caps.ts";
import { BLOCK_BIT } from "../../../lib/transforms/kv_pruning/decode_blocks.ts";
import {
  type PyramidInferOptions,
  resolvePyramidInfer,
} from "../../../lib/transforms/kv_pruning/pyramid_infer_options.ts";
import { pyramidInferSchedule, type Turn } from "../../../lib/transforms/kv_pruning/schedule.ts";
import { cacheLengths } from "./cache_lengths.ts";
import { randomNumbers } from "./random_numbers.ts";
import { simulate } from "./step_simulator.ts";

const KEEPS = [0.999, 0.95, 0.8, 0.6, 0.454, 0.3, 0.2, 0.1, 0.03];
const VARIANTS: PyramidInferOptions[] = [
  {},
  { sameLayer: true, genDecayStrategy: "constant", prefillDecayStrategy: "constant" },
  { prefillDecayStrategy: "linear", startLayer: 1, sinks: 20 },
  { genBlock: 64, recentRatio: 0.6, interval: 2, sinks: 0 },
];

function pastOf(layers: number, first: number): number[] {
  return Array.from({ length: layers }, (_, layer) => first - layer);
}

/** Whether a turn can be held to so many slots at all. */
function feasible(options: PyramidInferOptions, layers: number, turn: Turn, wanted: number): boolean {
  return Math.floor(wanted) >= leastSlots(resolvePyramidInfer(options), layers, turn);
}

function growing(values: readonly number[]): boolean {
  return values.some((value, index) => index > 0 && value > values[index - 1]);
}

Deno.test("solveBudget() uses up a budget and never overruns it, with lengths that never grow", () => {
  const ways = new Set<string>();
  let met = 0;
  for (const layers of [2, 6, 32, 80]) {
    for (const tokens of [1, 2, 5, 8, 50, 512, 2000, 32000]) {
      for (const maxTokens of [0, 1, 2, 20, 500, 3000]) {
        for (const past of [undefined, pastOf(layers, 1000)]) {
          for (const variant of past ? VARIANTS.slice(0, 1) : VARIANTS) {
            for (const keep of KEEPS) {
              const turn = { tokens, maxTokens, past };
              const wanted = keep * layers * (tokens + maxTokens);
              const resolved = resolvePyramidInfer({ ...variant, keep });
              if (!feasible(variant, layers, turn, wanted)) {
                if (past) {
                  // The least that works, and not more of it than a budget that can be met gets.
                  const { schedule } = solveBudget(resolved, layers, turn);
                  const total = layers * (tokens + maxTokens);
                  assert(schedule.slots > wanted && schedule.slots <= total);
                  const enough = schedule.slots / total;
                  const more = enough <= 1 ? resolvePyramidInfer({ ...variant, keep: enough }) : resolved;
                  assert(schedule.slots <= solveBudget(more, layers, turn).schedule.slots);
                  continue;
                }
                assertThrows(() => solveBudget(resolved, layers, turn), RangeError, "keep must be from");
                continue;
              }
              const { schedule, options, solved } = solveBudget(resolved, layers, turn);
              const place = () => JSON.stringify({ layers, tokens, maxTokens, keep, variant, solved });
              const most = layers * (tokens + Math.max(0, maxTokens - 1));
              assert(schedule.slots <= wanted, `over: ${place()}`);
              assert(
                schedule.slots >= 0.95 * wanted || schedule.slots === Math.min(most, Math.floor(wanted)),
                `unused: ${schedule.slots} of ${wanted} ${place()}`,
              );
              const own = schedule.layers.map((layer) => layer.capacity - layer.past);
              assertEquals(own.reduce((total, slots) => total + slots, 0), schedule.slots);
              assert(!growing(own) && !growing(schedule.layers.map(({ rows }) => rows)), place());
              assert(!growing(schedule.layers.map((layer) => layer.window + layer.keepSlots)), place());
              ways.add(
                `${options.prefillDecayStrategy} ${options.recentRatio < resolved.recentRatio} ${!!options
                  .caps}`,
              );
              met++;
            }
          }
        }
      }
    }
  }
  assert(met > 3000, `only ${met} budgets were met`);
  // Each step of the search was needed somewhere.
  for (
    const way of ["cosine false false", "cosine true false", "geometric true false", "geometric true true"]
  ) {
    assert(ways.has(way), `never ${way}: ${[...ways].join(", ")}`);
  }
});

Deno.test("solveBudget() with keep 1 drops nothing", () => {
  for (const tokens of [1, 8, 512, 3000]) {
    for (const maxTokens of [0, 1, 500]) {
      for (const variant of VARIANTS) {
        const { schedule } = solveBudget(resolvePyramidInfer({ ...variant, keep: 1 }), 6, {
          tokens,
          maxTokens,
        });
        const length = tokens + Math.max(0, maxTokens - 1);
        schedule.layers.forEach((layer) => {
          assertEquals([layer.keep, layer.keepSlots], Array(2).fill(layer.rows - layer.window));
          assertEquals([layer.rows, layer.capacity], [tokens, length]);
        });
        assert(schedule.windows.every((entry) => entry < BLOCK_BIT));
        if (maxTokens > 0) assertEquals(cacheLengths(schedule, maxTokens - 1), Array(6).fill(length));
      }
    }
  }
});

Deno.test("solveBudget() solves the decay first, then the recent ratio, then geometric ratios", () => {
  const turn = { tokens: 2048, maxTokens: 1 };
  const at = (keep: number) => solveBudget(resolvePyramidInfer({ keep }), 32, turn).solved;
  const half = at(0.6);
  assertEquals([half.prefillDecayStrategy, half.recentRatio, half.sameLayer], ["cosine", 0.2, false]);
  // The settings that are known as keeping 60 %.
  assert(Math.abs(half.prefillDecay - 0.7) < 0.01, `${half.prefillDecay}`);
  const less = at(0.42);
  assertEquals([less.prefillDecayStrategy, less.prefillDecay], ["cosine", 0.001]);
  assert(less.recentRatio < 0.2 && less.recentRatio > 0.05);
  const least = at(0.2);
  assertEquals([least.prefillDecayStrategy, least.sameLayer, least.caps], ["geometric", true, undefined]);
  assertEquals(least.recentRatio, 0.1 * 2048 / 2048);
});

Deno.test("solveBudget() always leaves something to evict, and lengths never grow in between", () => {
  const random = randomNumbers(9);
  let evicted = 0;
  for (let round = 0; round < 150; round++) {
    const layers = 1 + Math.floor(random() * 6);
    const tokens = [1, 2, 5, 8, 60, 300][Math.floor(random() * 6)];
    const maxTokens = [2, 3, 30, 120, 500][Math.floor(random() * 5)];
    const past = random() < 0.25 ? pastOf(layers, 400) : undefined;
    const variant = { ...VARIANTS[Math.floor(random() * 4)] };
    if (layers === 1) delete (variant as { startLayer?: number }).startLayer;
    const turn = { tokens, maxTokens, past };
    const least = leastSlots(resolvePyramidInfer(variant), layers, turn) / layers / (tokens + maxTokens);
    const keep = Math.min(1, least + 1e-9 + random() ** 2 * (1 - least));
    if (!feasible(variant, layers, turn, keep * layers * (tokens + maxTokens))) continue;
    const { options, schedule } = solveBudget(resolvePyramidInfer({ ...variant, keep }), layers, turn);
    const seen = simulate(options, schedule, turn, random);
    evicted += seen.evicted;
    const past0 = past ?? Array(layers).fill(0);
    for (const lengths of seen.lengths) {
      assert(!growing(lengths.map((length, layer) => length - past0[layer])), `${lengths} at keep ${keep}`);
    }
    const last = seen.lengths.length - 1;
    assertEquals(cacheLengths(schedule, last), [...seen.lengths[last]]);
    const closes = [...schedule.windows.keys()].filter((row) =>
      row > 0 && row < maxTokens && schedule.windows[row] >= BLOCK_BIT
    );
    assert(closes.length === 0 || closes.join() === seen.closes.join());
  }
  assert(evicted > 2000, `only ${evicted} tokens were evicted`);
});

Deno.test("solveBudget() takes cacheTokens as slots a layer", () => {
  const turn = { tokens: 1000, maxTokens: 200 };
  for (const cacheTokens of [60, 400, 1000]) {
    const { schedule } = solveBudget(resolvePyramidInfer({ cacheTokens }), 16, turn);
    assert(schedule.slots <= cacheTokens * 16 && schedule.slots >= 0.95 * cacheTokens * 16);
  }
  const past = pastOf(16, 700);
  const later = solveBudget(resolvePyramidInfer({ cacheTokens: 400 }), 16, {
    tokens: 10,
    maxTokens: 20,
    past,
  });
  assertEquals(later.schedule.slots, 16 * 29);
});

Deno.test("solveBudget() refuses what cannot be met with the smallest that can", () => {
  for (const layers of [1, 6, 33]) {
    for (
      const turn of [{ tokens: 2000, maxTokens: 1 }, { tokens: 8, maxTokens: 500 }, {
        tokens: 7,
        maxTokens: 3,
      }]
    ) {
      for (const name of ["keep", "cacheTokens"] as const) {
        const solve = (value: number) =>
          solveBudget({ ...resolvePyramidInfer(), [name]: value }, layers, turn);
        const tooLow = name === "keep" ? 1e-6 : 1;
        const error = assertThrows(() => solve(tooLow), RangeError) as Error;
        const [, smallest, largest] = error.message.match(/must be from ([\d.]+) to (\d+) for/)!;
        assertEquals(Number(largest), name === "keep" ? 1 : turn.tokens + turn.maxTokens);
        solve(Number(smallest));
        assertThrows(() => solve(Number(smallest) - (name === "keep" ? 1e-4 : 1)), RangeError, smallest);
        assertThrows(() => solve(Number(largest) + 1), RangeError, `received ${Number(largest) + 1}`);
      }
    }
  }
  const error = assertThrows(
    () => solveBudget(resolvePyramidInfer({ keep: 0.001 }), 4, { tokens: 2000, maxTokens: 1 }),
    RangeError,
  ) as Error;
  // Four sinks and the last token.
  assertEquals(
    error.message,
    "keep must be from 0.0025 to 1 for 2000 tokens and 1 new ones: sinks, the window, a block of new tokens and the " +
      "next token need that many slots: received 0.001",
  );
});

Deno.test("solveBudget() without a budget leaves the settings as they are", () => {
  const options = resolvePyramidInfer();
  const turn = { tokens: 512, maxTokens: 100 };
  const result = solveBudget(options, 32, turn);
  assertEquals(result.options, options);
  assertEquals(result.schedule, pyramidInferSchedule(options, 32, turn));
  assertEquals(result.solved.share, result.schedule.slots / (32 * 612));
});
