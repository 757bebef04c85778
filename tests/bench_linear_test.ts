// The bench of linear attention runs: a tiny shape and few lengths, and what it makes of times.

import { assert, assertAlmostEquals, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createBudget } from "./bench/budget.ts";
import { crossover, crossoverText } from "./bench/crossover.ts";
import { benchLinear } from "./bench/linear.ts";
import { linearFlops, softmaxFlops } from "./bench/linear_kernels.ts";
import { prefillSection } from "./bench/linear_report.ts";
import { sharedGpu } from "./harness/kernel_case.ts";

const CEILINGS = { bytesPerSecond: 1e9, flopsPerSecond: 1e9 };

Deno.test("benchLinear() measures decode, prefill and kernels of a tiny shape", async () => {
  const gpu = await sharedGpu();
  const out = await Deno.makeTempDir();
  try {
    const cores = ["softmax", "norm-attention"];
    const text = await benchLinear(gpu, {
      ceilings: CEILINGS,
      model: "tiny",
      cores,
      longest: 128,
      // Other devices than a CPU driver have larger lengths and shapes for their kernels.
      ...(gpu.adapter.isFallback ? {} : { part: "decode", longest: 4096 }),
      out,
    });
    for (const core of cores) assertMatch(text, new RegExp(`\\| ${core} \\|`));
    assertMatch(text, /norm-attention: time of a step, .*; bytes allocated the same by position/);
    assertMatch(text, /softmax: time of a step, .*; bytes allocated differ by position/);
    const table = await Deno.readTextFile(`${out}/decode.csv`);
    const cells = table.trim().split("\n").slice(1).map((line) => line.split(",").slice(3).map(Number));
    assertEquals(cells.length, 4);
    assert(cells.flat().every(Number.isFinite), table);
    assertMatch(await Deno.readTextFile(`${out}/decode.svg`), /^<svg/);
    if (!gpu.adapter.isFallback) return;
    assertMatch(text, /### Prefill, tiny/);
    assertEquals((await Deno.readTextFile(`${out}/prefill.csv`)).trim().split("\n").length, 1 + 2 * 3);
    assertMatch(await Deno.readTextFile(`${out}/kernels-4-heads-of-16-slices.svg`), /^<svg/);
  } finally {
    await Deno.remove(out, { recursive: true });
  }
});

Deno.test("benchLinear() refuses options that it does not know", async () => {
  const gpu = await sharedGpu();
  const refuses = (options: object, message: string) =>
    assertRejects(() => benchLinear(gpu, { ceilings: CEILINGS, ...options }), RangeError, message);
  await refuses({ model: "Llama-9" }, "There is no shape Llama-9");
  await refuses({ cores: ["mamba"] }, "There is no core mamba");
  await refuses({ part: "batch" }, "There is no part batch");
  await refuses({ longest: 50 }, "longest must be a multiple of 4 of at least 64");
  await refuses({ seconds: 0 }, "budget-seconds must be more than 0");
});

Deno.test("crossover() interpolates where ours becomes and stays the faster one", () => {
  const points = [
    { length: 512, ours: 2, theirs: 3 },
    { length: 1024, ours: 4, theirs: 2 },
    { length: 4096, ours: 8, theirs: 16 },
  ];
  // Twice as slow, then twice as fast: half way in logarithms.
  assertAlmostEquals(crossover(points), 2048);
  assertEquals(crossover(points.slice(0, 1)), 0);
  assertEquals(crossover(points.slice(0, 2)), Infinity);
  assertEquals(crossover([]), NaN);
  assertEquals(crossoverText(points.slice(0, 2)), "not faster at 1024 tokens, the longest measured");
});

Deno.test("createBudget() leaves out what does not fit, and names it", () => {
  let now = 0;
  const budget = createBudget(100, () => now);
  assert(budget.fits(0, "first"));
  assert(!budget.fits(26, "long"));
  now = 90_000;
  assert(budget.fits(9, "near the end"));
  now = 101_000;
  assert(!budget.fits(0, "late"));
  assertEquals(budget.leftOut, ["long (about 26 s)", "late"]);
});

Deno.test("prefillSection() tells ratios against their marks, and the crossover", () => {
  const cells = [
    { core: "softmax", length: 32768, ms: 100 },
    { core: "norm-attention", length: 32768, ms: 200 },
    { core: "softmax", length: 65536, ms: 800 },
    { core: "norm-attention", length: 65536, ms: 400 },
  ];
  const { text, files } = prefillSection("some shape", cells);
  assertMatch(
    text,
    /norm-attention: 64k \/ 32k: 2\.000 \(mark: at most 2\.2, met\); faster from about 46341 tokens on/,
  );
  assertMatch(text, /softmax: 64k \/ 32k: 8\.000$/m);
  assertEquals(files["prefill.csv"].split("\n")[1], "some shape,softmax,32768,100");
});

Deno.test("softmaxFlops() and linearFlops() count products without what a mask hides", () => {
  const shape = { heads: 1, kvHeads: 1, headSize: 4 };
  // One row: 4 products and as many sums for its score, the same for its value.
  assertEquals(softmaxFlops(1, shape), 16);
  assertEquals(softmaxFlops(2, shape), 3 * 16);
  // Two rows of a chunk: k vᵀ of both and one step of the scan; Sᵀ q of both and three pairs inside.
  assertEquals(linearFlops(2, shape), 3 * 32 + 2 * 32 + 3 * 16);
});
