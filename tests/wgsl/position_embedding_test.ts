import { assertAlmostEquals } from "@std/assert";
import { rotaryTable, sinusoidalFrequencies } from "../../lib/ops/mod.ts";
import { positionEmbedding } from "../../wgsl/position_embedding.ts";
import { ROW_WORDS } from "../../wgsl/tables.ts";
import { checkCase, type KernelCase, randomArray, sharedGpu, store, widen } from "../harness/kernel_case.ts";
import { runKernel } from "../harness/run_kernel.ts";

// The device is shared by all tests and outlives them.
const leaky = { sanitizeOps: false, sanitizeResources: false };
const POISON = -0.71875;

/** Row structs at these positions. */
function rowsAt(positions: readonly number[]): Uint32Array {
  return Uint32Array.from(positions.flatMap((position, i) => [7, 0, position, i]));
}

const positionOf = (rows: ArrayLike<number>, row: number): number => rows[row * ROW_WORDS + 2];

function sinusoidalCase(positions: readonly number[], width: number, offset: number): KernelCase {
  const rows = positions.length;
  const frequencies = sinusoidalFrequencies(width);
  const pairs = frequencies.length;
  return {
    family: "positionEmbedding",
    name: `rows ${rows}, width ${width}, offset ${offset}`,
    kernel: positionEmbedding({ kind: "sinusoidal" }),
    parameters: { rows, width, offset },
    data: () => ({
      rowTable: rowsAt(positions),
      table: rotaryTable({
        name: "",
        layout: "half",
        size: 2 * pairs,
        frequencies,
        positions: Math.max(...positions) + offset + 1,
      }),
      x: randomArray(rows * width, 3),
      out: new Float32Array(rows * width + 3).fill(POISON),
    }),
    expected: ({ rowTable, x, out }) => {
      const want = widen(out);
      for (let i = 0; i < rows * width; i++) {
        const [row, column] = [Math.floor(i / width), i % width];
        const angle = (positionOf(rowTable, row) + offset) * frequencies[column % pairs];
        want[i] = x[i] + (column < pairs ? Math.sin(angle) : column < 2 * pairs ? Math.cos(angle) : 0);
      }
      return { out: want };
    },
    tolerance: 1e-6,
    work: { flops: 8 * rows * width, bytes: 8 * rows * width },
  };
}

function learnedCase(
  dtype: "f16" | "f32",
  { positions, width, offset, part: [first, count], last }: {
    positions: readonly number[];
    width: number;
    offset: number;
    part: [number, number];
    last: number;
  },
): KernelCase {
  const rows = positions.length;
  return {
    family: "positionEmbedding",
    name: `rows ${rows}, width ${width}, positions ${first} to ${first + count}`,
    kernel: positionEmbedding({ kind: "learned", dtype }),
    parameters: { rows, width, offset, firstPosition: first, positionCount: count, lastPosition: last },
    data: () => ({
      rowTable: rowsAt(positions),
      table: store(randomArray(count * width, 5), dtype),
      x: randomArray(rows * width, 6),
      out: new Float32Array(rows * width + 3).fill(POISON),
    }),
    expected: ({ rowTable, table, x, out }) => {
      const [want, values] = [widen(out), widen(table)];
      for (let i = 0; i < rows * width; i++) {
        const row = Math.floor(i / width);
        const index = Math.min(positionOf(rowTable, row) + offset, last) - first;
        // Rows of other parts are theirs.
        if (index >= 0 && index < count) want[i] = x[i] + values[index * width + i % width];
      }
      return { out: want };
    },
    tolerance: 1e-6,
    work: { flops: rows * width, bytes: 12 * rows * width },
  };
}

Deno.test({
  name: "positionEmbedding() agrees with the f64 oracle",
  ...leaky,
  fn: async () => {
    const gpu = await sharedGpu();
    const cases = [
      sinusoidalCase([0], 4, 0),
      sinusoidalCase([3, 0, 255, 256, 70000, 1, 13], 67, 2),
      sinusoidalCase([5, 999999], 130, 1),
      ...(["f32", "f16"] as const).flatMap((dtype) => [
        learnedCase(dtype, { positions: [0], width: 1, offset: 0, part: [0, 1], last: 0 }),
        learnedCase(dtype, { positions: [4, 0, 7, 2, 100], width: 37, offset: 2, part: [0, 10], last: 9 }),
        learnedCase(dtype, { positions: [4, 0, 7, 2, 100], width: 37, offset: 2, part: [5, 5], last: 11 }),
      ]),
    ];
    for (const test of cases) await checkCase(gpu, test);
  },
});

Deno.test({
  name: "positionEmbedding() has sines in the first half of a row and cosines in the second, as fairseq",
  ...leaky,
  fn: async () => {
    const gpu = await sharedGpu();
    const { kernel, parameters, data } = sinusoidalCase([0, 1], 8, 1);
    const { outputs } = await runKernel(gpu, kernel, parameters, { ...data(), x: new Float32Array(16) });
    const out = new Float32Array(outputs.out);
    // Four frequencies: 1, 10000^(-1/3), 10000^(-2/3), 10000^-1; positions begin at 1.
    assertAlmostEquals(out[0], Math.sin(1), 1e-6);
    assertAlmostEquals(out[3], Math.sin(1e-4), 1e-6);
    assertAlmostEquals(out[4], Math.cos(1), 1e-6);
    assertAlmostEquals(out[9], Math.sin(2 * 10000 ** (-1 / 3)), 1e-6);
    assertAlmostEquals(out[15], Math.cos(2e-4), 1e-6);
  },
});
