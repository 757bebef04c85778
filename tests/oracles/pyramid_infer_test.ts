// The oracle of PyramidInfer against what can be known without it: lengths that the released code was seen to have, a
// plain Llama where nothing is dropped, and a Llama whose attention is uniform, so that every choice is a tie.

import { assert, assertEquals, assertLess } from "@std/assert";
import { relativeError } from "../harness/compare.ts";
import { oracleTensors, randomIds, randomLlama } from "../harness/random_llama.ts";
import { llamaCache, llamaOracle } from "./llama.ts";
import { pyramidInferOracle } from "./pyramid_infer.ts";
import {
  largestIndex,
  lengthsOf,
  type PyramidInferSettings,
  RELEASED,
  topIndices,
} from "./pyramid_infer_lengths.ts";

const SMALL = {
  hidden_size: 20,
  intermediate_size: 24,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  vocab_size: 50,
};
const EVERYTHING: PyramidInferSettings = { ...RELEASED, prefillDecay: 1, genDecay: 1, genCompress: 1 };

function rowsOf(tokens: number, layers: number, settings: Partial<PyramidInferSettings> = {}): number[] {
  const turn = { tokens, maxTokens: 0, past: Array(layers).fill(0), later: false };
  return lengthsOf({ ...RELEASED, ...settings }, layers, turn).rows.slice(0, layers);
}

Deno.test("lengthsOf() has the lengths that the released code was seen to have", () => {
  assertEquals(
    rowsOf(512, 32).join(" "),
    "512 512 511 510 509 507 504 500 495 489 481 472 462 450 437 423 408 392 376 359 342 325 308 292 276 261 246 " +
      "232 219 207 196 186",
  );
  assertEquals(
    rowsOf(2048, 32).join(" "),
    "2048 2048 2047 2045 2041 2034 2024 2010 1991 1967 1938 1904 1864 1819 1769 1714 1655 1592 1527 1460 1392 1324 " +
      "1256 1190 1126 1064 1006 951 900 852 808 768",
  );
  const sums: [number, number, Partial<PyramidInferSettings>, number, number][] = [
    [512, 40, { prefillDecay: 0.8, interval: 2 }, 14806, 180],
    [2048, 40, { prefillDecay: 0.8, interval: 2 }, 59234, 616],
    [512, 80, { interval: 3 }, 31706, 201],
    [2048, 80, { interval: 3 }, 127834, 821],
  ];
  for (const [tokens, layers, settings, sum, last] of sums) {
    const rows = rowsOf(tokens, layers, settings);
    assertEquals([rows.reduce((a, b) => a + b), rows.at(-1)], [sum, last]);
  }
  const constant = rowsOf(400, 16, { prefillDecay: 0.7, prefillDecayStrategy: "constant" });
  assertEquals(constant.slice(0, 6), [400, 304, 237, 190, 157, 157]);
});

Deno.test("topIndices() takes the largest in order, of equal ones the first, and tells how clear that was", () => {
  assertEquals(topIndices([1, 3, 2, 3, 2], 3), { indices: [1, 2, 3], gap: 0 });
  assertEquals(topIndices([4, 8, 2], 2), { indices: [0, 1], gap: 0.5 });
  assertEquals(topIndices([Infinity, 1, Infinity, 2], 1), { indices: [0], gap: Infinity });
  assertEquals(topIndices([1, 2], 2), { indices: [0, 1], gap: Infinity });
});

Deno.test("pyramidInferOracle() is a plain Llama where nothing is dropped, in two turns", () => {
  const made = randomLlama(SMALL, 5);
  const tensors = oracleTensors(made);
  const oracle = pyramidInferOracle(made.config, tensors, EVERYTHING);
  const cache = llamaCache(made.config);
  let fed = 0;
  const plain = (ids: readonly number[]) => {
    const positions = ids.map(() => fed++);
    return llamaOracle(made.config, tensors, ids, { cache, positions });
  };
  let pending: number[] = [];
  for (const length of [90, 7]) {
    const ids = [...pending, ...randomIds(length, SMALL.vocab_size, length)];
    const got = oracle.turn({ ids, maxTokens: 45 });
    const prompt = plain(ids);
    assertLess(relativeError(got.hidden, prompt.hidden), 1e-12);
    const want: number[] = [];
    let logits: Float64Array = prompt.logits.slice(-SMALL.vocab_size);
    for (;;) {
      want.push(largestIndex(logits).index);
      if (want.length === 45) break;
      logits = plain(want.slice(-1)).logits;
    }
    assertEquals(got.ids, want);
    assertEquals(got.dropped, { selected: 0, compressed: 0, evicted: 0 });
    for (const own of got.kept.flat()) assertEquals(own, [...Array(fed).keys()]);
    pending = want.slice(-1);
  }
  assertEquals(oracle.leastGap, Infinity);
});

/** A Llama whose rows attend to all that they see alike. */
function uniformLlama() {
  const made = randomLlama(SMALL, 6);
  const tensors = oracleTensors(made);
  for (const [name, tensor] of tensors) if (name.includes("q_proj")) tensor.fill(0);
  return { config: made.config, tensors };
}

Deno.test("pyramidInferOracle() keeps the first of equal tokens, and the window", () => {
  const { config, tensors } = uniformLlama();
  const settings = { ...RELEASED, prefillDecay: 0.5, minContext: 4, recentRatio: 0.1, genDecay: 0.5 };
  const oracle = pyramidInferOracle(config, tensors, settings);
  const got = oracle.turn({ ids: randomIds(60, SMALL.vocab_size, 1), maxTokens: 60 });
  // Window 7. Ratios: 1, 0.927, 0.75, 0.573.
  const rows = [60, 60, 56, 43, 27].map((length) => [
    ...Array.from({ length: length - 7 }, (_, i) => i),
    ...Array.from({ length: 7 }, (_, i) => 53 + i),
  ]);
  got.promptKept.forEach((heads, l) => assertEquals(heads, [rows[l], rows[l]]));
  assertEquals(got.hiddenPositions, rows[4]);
  // Row r protects 1 + floor(0.1 (length + 1)): a first block closes when r - R' is 16, at row 24, where R' is 8 with
  // 83 tokens before it. It is of positions 59 to 74, of which the last layer keeps floor(14.4 * 0.573).
  assertEquals(got.history[22].map(([own]) => own.length), [83, 83, 79, 66]);
  assertEquals(got.history[23].map(([own]) => own.length), [82, 81, 74, 59]);
  const [, , , [top]] = got.history[23];
  assertEquals(top.slice(42), [59, 60, 61, 62, 63, 64, 65, 66, 75, 76, 77, 78, 79, 80, 81, 82, 83]);
});

Deno.test("pyramidInferOracle() evicts at a cap what has least attention, of equal tokens the first", () => {
  const { config, tensors } = uniformLlama();
  const settings = { ...EVERYTHING, recentRatio: 0.1, genCompress: 0.9, caps: [65, 65, 65, 65] };
  const oracle = pyramidInferOracle(config, tensors, settings);
  const got = oracle.turn({ ids: randomIds(60, SMALL.vocab_size, 1), maxTokens: 60 });
  const gone = (row: number, before: readonly number[]) => {
    const after = new Set(got.history[row - 1][2][1]);
    return before.filter((position) => !after.has(position));
  };
  let before = got.promptKept[2][1];
  const evicted: number[][] = [];
  for (let row = 1; row <= 24; row++) {
    evicted.push(gone(row, before));
    before = got.history[row - 1][2][1];
  }
  // Fewer rows see the window's columns, so that they score less; row 5 protects the newest 7. The last token fed belongs
  // to the block that closes at row 22: of equal tokens its last two go.
  assertEquals(evicted, [
    ...[[], [], [], []],
    ...[57, 58, 56, 55, 54].map((position) => [position]),
    ...Array.from({ length: 12 }, (_, i) => [4 + i]),
    [73, 74],
    [],
    // A token of the block was scored by rows that saw more.
    [59],
  ]);
  for (const own of got.kept.flat()) assertEquals([own.length, ...own.slice(0, 4)], [65, 0, 1, 2, 3]);
  assert(got.dropped.evicted > 100);
});

Deno.test("pyramidInferOracle() prunes the rows of a second turn among themselves", () => {
  const made = randomLlama(SMALL, 8);
  const oracle = pyramidInferOracle(made.config, oracleTensors(made), {
    ...RELEASED,
    prefillDecay: 0.4,
    minContext: 4,
    perKvHead: true,
    sameLayer: true,
  });
  const first = oracle.turn({ ids: randomIds(50, SMALL.vocab_size, 1), maxTokens: 6 });
  assert(first.promptKept.some(([a, b]) => a.join() !== b.join()), "heads keep tokens of their own");
  const second = oracle.turn({
    ids: [...first.ids.slice(-1), ...randomIds(40, SMALL.vocab_size, 2)],
    maxTokens: 4,
  });
  second.promptKept.forEach((heads, l) =>
    heads.forEach((own, head) => {
      assertEquals(own.filter((position) => position < 55), first.kept[l][head]);
      assertEquals(own.slice(-9), Array.from({ length: 9 }, (_, i) => 87 + i));
    })
  );
  assert(second.dropped.selected > 20);
});
