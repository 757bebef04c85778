import { assert, assertEquals } from "@std/assert";
import { BLOCK_BIT } from "../../../lib/transforms/kv_pruning/decode_blocks.ts";
import {
  type PyramidInferOptions,
  resolvePyramidInfer,
} from "../../../lib/transforms/kv_pruning/pyramid_infer_options.ts";
import { pyramidInferSchedule, type Turn } from "../../../lib/transforms/kv_pruning/schedule.ts";
import { cacheLengths } from "./cache_lengths.ts";
import { randomNumbers } from "./random_numbers.ts";
import { simulate } from "./step_simulator.ts";

const released = resolvePyramidInfer();
const mean = (values: number[]): number => values.reduce((total, value) => total + value, 0) / values.length;

Deno.test("pyramidInferSchedule() keeps of a block what the released settings keep", () => {
  const { layers } = pyramidInferSchedule(released, 32, { tokens: 512, maxTokens: 1 });
  assertEquals(
    layers.map(({ genKeep }) => genKeep).join(" "),
    "14 14 14 14 13 13 13 12 12 12 11 10 10 9 9 8 7 7 6 6 5 4 4 3 3 2 2 2 1 1 1 1",
  );
});

Deno.test("pyramidInferSchedule() closes the first block at the reference's row", () => {
  for (const [tokens, row] of [[512, 147], [256, 83]]) {
    const { windows } = pyramidInferSchedule(released, 32, { tokens, maxTokens: 300 });
    assertEquals(windows.findIndex((entry) => entry >= BLOCK_BIT), row);
    assertEquals(windows.length, 301);
    assertEquals(windows[0], 1 + Math.floor(0.2 * tokens));
    assertEquals(windows[row], BLOCK_BIT + 1 + Math.floor(0.2 * (tokens + row)));
  }
});

Deno.test("cacheLengths() gives the reference's end states", () => {
  for (const [tokens, fed, share] of [[512, 256, 0.772], [512, 2048, 0.630], [128, 4096, 0.581]]) {
    const schedule = pyramidInferSchedule(released, 32, { tokens, maxTokens: fed + 1 });
    const lengths = cacheLengths(schedule, fed);
    assertEquals((mean(lengths) / (tokens + fed)).toFixed(3), share.toFixed(3));
    if (fed === 256) assertEquals([lengths[0], lengths[16], lengths[31]], [756, 610, 352]);
  }
});

/** Compares a plan with the token-by-token simulation after every row. */
function compare(options: PyramidInferOptions, layers: number, turn: Turn): number {
  const resolved = resolvePyramidInfer(options);
  const schedule = pyramidInferSchedule(resolved, layers, turn);
  const seen = simulate(resolved, schedule, turn, randomNumbers(turn.tokens));
  const planned = [...schedule.windows.keys()].filter((row) =>
    row < turn.maxTokens && schedule.windows[row] >= BLOCK_BIT
  );
  const drops = schedule.layers.some(({ genKeep }) => genKeep < resolved.genBlock);
  assertEquals(planned, drops ? [...seen.closes] : []);
  seen.lengths.forEach((lengths, row) => {
    if (row % 37 === 0 || row === turn.maxTokens - 1) assertEquals(cacheLengths(schedule, row), [...lengths]);
  });
  assertEquals(schedule.layers.map(({ capacity }) => capacity), [...seen.peaks]);
  assertEquals(seen.evicted, 0);
  return seen.closes.length;
}

Deno.test("pyramidInferSchedule() agrees with a step simulator in closed blocks, lengths and most slots", () => {
  const random = randomNumbers(3);
  let blocks = 0;
  for (let round = 0; round < 80; round++) {
    const layers = 1 + Math.floor(random() * 6);
    const genBlock = [4, 5, 16, 33, 64][Math.floor(random() * 5)];
    const highest = (genBlock - 2) / genBlock;
    const recentRatio = [0, 0.2, highest, random() * highest][Math.floor(random() * 4)];
    const tokens = [1, 2, 7, 130, 400][Math.floor(random() * 5)];
    const past = random() < 0.3 ? Array.from({ length: layers }, (_, layer) => 300 - 20 * layer) : undefined;
    blocks += compare(
      {
        recentRatio,
        genBlock,
        genDecay: random(),
        genCompress: random(),
        genDecayStrategy: (["cosine", "constant", "linear"] as const)[Math.floor(random() * 3)],
        startLayer: random() < 0.3 ? layers - 1 : 0,
        sameLayer: random() < 0.5,
        interval: 1 + Math.floor(random() * 2),
        sinks: Math.floor(random() * 6),
      },
      layers,
      { tokens, maxTokens: Math.floor(random() * 700), past },
    );
  }
  assert(blocks > 500, `only ${blocks} blocks closed`);
});

Deno.test("pyramidInferSchedule() compresses every layer in decode, whatever the interval", () => {
  assert(compare({ preset: "llama2-70b" }, 7, { tokens: 200, maxTokens: 601 }) > 10);
});

Deno.test("pyramidInferSchedule() closes no block where all of them are kept whole", () => {
  const options = { genDecay: 1, genCompress: 1 };
  compare(options, 4, { tokens: 64, maxTokens: 300 });
  const schedule = pyramidInferSchedule(resolvePyramidInfer(options), 4, { tokens: 64, maxTokens: 300 });
  assert(schedule.windows.every((entry) => entry < BLOCK_BIT));
  assertEquals(cacheLengths(schedule, 299), [363, 363, 363, 363]);
});
