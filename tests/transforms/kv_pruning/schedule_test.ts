import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type PyramidInferOptions,
  resolvePyramidInfer,
} from "../../../lib/transforms/kv_pruning/pyramid_infer_options.ts";
import { pyramidInferSchedule, type Schedule } from "../../../lib/transforms/kv_pruning/schedule.ts";
import { randomNumbers } from "./random_numbers.ts";

function plan(options: PyramidInferOptions, layers: number, tokens: number, maxTokens = 1): Schedule {
  return pyramidInferSchedule(resolvePyramidInfer(options), layers, { tokens, maxTokens });
}

const rowsOf = (schedule: Schedule): number[] => schedule.layers.map(({ rows }) => rows);
const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);

Deno.test("pyramidInferSchedule() gives the reference's lengths of a 7B model", () => {
  const at512 =
    "512 512 511 510 509 507 504 500 495 489 481 472 462 450 437 423 408 392 376 359 342 325 308 292 276 " +
    "261 246 232 219 207 196 186";
  const at2048 =
    "2048 2048 2047 2045 2041 2034 2024 2010 1991 1967 1938 1904 1864 1819 1769 1714 1655 1592 1527 1460 " +
    "1392 1324 1256 1190 1126 1064 1006 951 900 852 808 768";
  assertEquals(rowsOf(plan({}, 32, 512)).join(" "), at512);
  assertEquals(rowsOf(plan({ preset: "llama3-8b" }, 32, 2048)).join(" "), at2048);
});

Deno.test("pyramidInferSchedule() gives the reference's sums and last lengths of 13B and 70B models", () => {
  const cases = [
    ["llama2-13b", 40, 512, 14806, 180],
    ["llama2-13b", 40, 2048, 59234, 616],
    ["llama2-70b", 80, 512, 31706, 201],
    ["llama3-70b", 80, 2048, 127834, 821],
  ] as const;
  for (const [preset, layers, tokens, total, last] of cases) {
    const schedule = plan({ preset }, layers, tokens);
    assertEquals([sum(rowsOf(schedule)), schedule.layers.at(-1)!.rows], [total, last]);
    assertEquals(schedule.slots, total);
  }
});

Deno.test("pyramidInferSchedule() keeps the shares that the released settings are known for", () => {
  const sizes = [256, 512, 1024, 2048, 8192];
  const table = [
    ["llama2-7b", 32, [0.758, 0.757, 0.762, 0.765, 0.766], 0.632, 768],
    ["llama2-13b", 40, [0.743, 0.723, 0.722, 0.723, 0.724], 0.583, 616],
    ["llama2-70b", 80, [0.769, 0.774, 0.778, 0.780, 0.782], 0.649, 821],
  ] as const;
  for (const [preset, layers, shares, squares, last] of table) {
    const kept = sizes.map((tokens) => sum(rowsOf(plan({ preset }, layers, tokens))) / layers / tokens);
    assertEquals(kept.map((share) => share.toFixed(3)), shares.map((share) => share.toFixed(3)));
    const rows = rowsOf(plan({ preset }, layers, 2048));
    assertEquals((sum(rows.map((count) => count ** 2)) / layers / 2048 ** 2).toFixed(3), squares.toFixed(3));
    assertEquals(rows.at(-1), last);
  }
});

Deno.test("pyramidInferSchedule() keeps the known shares at other decays and recent ratios", () => {
  const ratios = [0.01, 0.05, 0.1, 0.2, 0.4, 0.6];
  const table: Record<number, number[]> = {
    0.95: [0.824, 0.832, 0.840, 0.858, 0.893, 0.928],
    0.9: [0.710, 0.721, 0.735, 0.765, 0.823, 0.881],
    0.8: [0.573, 0.590, 0.612, 0.654, 0.741, 0.828],
    0.7: [0.502, 0.522, 0.547, 0.599, 0.702, 0.803],
    0.5: [0.429, 0.452, 0.481, 0.544, 0.658, 0.776],
    0.3: [0.393, 0.417, 0.448, 0.509, 0.640, 0.768],
    0.01: [0.355, 0.381, 0.413, 0.478, 0.619, 0.757],
  };
  for (const [decay, shares] of Object.entries(table)) {
    const kept = ratios.map((recentRatio) =>
      plan({ prefillDecay: Number(decay), recentRatio }, 32, 2048).slots / 32 / 2048
    );
    assertEquals(
      kept.map((share) => share.toFixed(3)),
      shares.map((share) => share.toFixed(3)),
      `d = ${decay}`,
    );
  }
});

/** Context rows by recursion from the last layer down, with each ratio from a table: another style, the same f64 steps. */
function recurrence(
  tokens: number,
  layers: number,
  every: number,
  recent: number,
  least: number,
  ratios: number[],
): number[] {
  const newest = Math.floor(recent * tokens) + 1;
  const floor = Math.min(least, tokens - newest);
  const context = (layer: number, left: number): number[] => {
    if (layer === layers) return [left];
    const product = left * ratios[layer];
    const kept = product - product % 1;
    const cut = layer % every === 0 && left > floor && kept > floor && kept < left;
    return [left, ...context(layer + 1, cut ? kept : left)];
  };
  return context(0, tokens - newest).map((left) => left + newest);
}

Deno.test("pyramidInferSchedule() agrees with an f64 recurrence for all prompts of 1 to 32768 tokens", () => {
  const random = randomNumbers(1);
  for (let tokens = 1; tokens <= 32768; tokens++) {
    const layers = 1 + Math.floor(random() * 48);
    const prefillDecay = random();
    const recentRatio = random() < 0.5 ? 0.2 : 0.8 * random();
    const interval = 1 + Math.floor(random() * 3);
    const minContext = random() < 0.5 ? 64 : Math.floor(random() * 200);
    const kind = Math.floor(random() * 3);
    const ratios = Array.from({ length: layers }, (_, layer) =>
      [
        prefillDecay + (1 - prefillDecay) * (1 + Math.cos(Math.PI * layer / layers)) / 2,
        prefillDecay,
        prefillDecay + (1 - prefillDecay) * layer / layers,
      ][kind]);
    const schedule = plan(
      {
        prefillDecay,
        recentRatio,
        interval,
        minContext,
        prefillDecayStrategy: (["cosine", "constant", "linear"] as const)[kind],
      },
      layers,
      tokens,
    );
    const expected = recurrence(tokens, layers, interval, recentRatio, minContext, ratios);
    const got = [...rowsOf(schedule), schedule.left];
    // Compared as text only where they differ: 32768 deep comparisons take their time.
    if (got.join() !== expected.join()) assertEquals(got, expected, `${tokens} tokens, ${layers} layers`);
  }
});

Deno.test("pyramidInferSchedule() works for prompts of 1 to 8 tokens and sinks larger than the context", () => {
  for (let tokens = 1; tokens <= 8; tokens++) {
    for (const minContext of [0, 2, 64]) {
      const schedule = plan({ sinks: 100, minContext, prefillDecay: 0.3 }, 6, tokens, 4);
      schedule.layers.forEach((layer, index) => {
        const { rows, window, keep, sinks, keepSlots } = layer;
        assertEquals(
          rows,
          index === 0 ? tokens : schedule.layers[index - 1].window + schedule.layers[index - 1].keep,
        );
        assert(window >= 1 && window <= tokens && keep >= 0 && sinks <= keep && keepSlots === rows - window);
      });
      if (minContext === 64) assertEquals(schedule.left, tokens);
    }
  }
  assertEquals(rowsOf(plan({ minContext: 0, prefillDecay: 0.5 }, 4, 8)), [8, 8, 7, 5]);
});

Deno.test("pyramidInferSchedule() stores what its own selection leaves with sameLayer", () => {
  const plain = plan({}, 32, 512);
  const same = plan({ sameLayer: true }, 32, 512);
  assertEquals(rowsOf(same), rowsOf(plain));
  same.layers.forEach((layer, index) => {
    assertEquals(layer.keepSlots, layer.keep);
    assertEquals(plain.layers[index].keepSlots, layer.rows - layer.window);
    assertEquals(layer.capacity, index < 31 ? same.layers[index + 1].rows : same.left);
  });
});

Deno.test("pyramidInferSchedule() runs over the layers from the start layer on", () => {
  const whole = plan({ preset: "llama2-13b" }, 24, 1000, 400);
  const late = plan({ preset: "llama2-13b", startLayer: 8 }, 32, 1000, 400);
  assertEquals(rowsOf(late), [...Array(8).fill(1000), ...rowsOf(whole)]);
  assertEquals(late.left, whole.left);
  assertEquals(late.layers.map(({ genKeep }) => genKeep), [
    ...Array(8).fill(16),
    ...whole.layers.map(({ genKeep }) => genKeep),
  ]);
  late.layers.slice(0, 8).forEach((layer) => {
    assertEquals([layer.keep, layer.keepSlots], [999 - 200, 999 - 200]);
    assertEquals(layer.capacity, 1399);
  });
});

Deno.test("pyramidInferSchedule() caps the rows that score, not the window", () => {
  const [layer] = plan({ rowCap: 64 }, 4, 1000).layers;
  assertEquals([layer.window, layer.scored], [201, 64]);
  assertEquals(plan({ rowCap: 64 }, 4, 100).layers[0].scored, 21);
});

Deno.test("pyramidInferSchedule() prunes the new rows of a later turn among themselves", () => {
  const past = [900, 800, 700, 600];
  const first = plan({}, 4, 500, 10);
  const later = pyramidInferSchedule(resolvePyramidInfer(), 4, { tokens: 500, maxTokens: 10, past });
  assertEquals(rowsOf(later), rowsOf(first));
  assertEquals(later.slots, first.slots);
  assertEquals(
    later.layers.map(({ capacity }) => capacity),
    first.layers.map((layer, i) => layer.capacity + past[i]),
  );
  assertEquals([first.layers[0].sinks, later.layers[0].sinks], [4, 0]);
  // In decode the recent window follows all that layer 0 holds.
  assertEquals([later.windows[0], later.windows[1]], [101, 1 + Math.floor(0.2 * 1401)]);
});

Deno.test("pyramidInferSchedule() refuses turns that do not belong to the model", () => {
  const cases: [() => unknown, string][] = [
    [
      () => plan({ startLayer: 6 }, 6, 10),
      "startLayer must be from 0 to 5 in a model of 6 layers: received 6",
    ],
    [() => plan({}, 6, 0), "A turn must feed at least 1 token: received 0"],
    [() => plan({}, 6, 1, -1), "The most new tokens must be a whole number from 0: received -1"],
    [
      () => pyramidInferSchedule(resolvePyramidInfer(), 6, { tokens: 1, maxTokens: 1, past: [1] }),
      "Slots of earlier turns must be given for all 6 layers: received 1",
    ],
  ];
  for (const [call, message] of cases) {
    assertEquals((assertThrows(call, RangeError) as Error).message, message);
  }
});
