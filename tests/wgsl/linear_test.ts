import { assertEquals, assertThrows } from "@std/assert";
import { add } from "../../wgsl/add.ts";
import type { Grid, Kernel } from "../../wgsl/kernel.ts";
import { matmul, splitDecisions, TILES } from "../../wgsl/matmul.ts";
import { matmulReduce } from "../../wgsl/matmul_reduce.ts";
import { matvec, matvecDecisions, type MatvecSpec } from "../../wgsl/matvec.ts";
import { normRows } from "../../wgsl/norm_rows.ts";
import { workgroupThreads } from "../../wgsl/threads.ts";
import { checkCase, sharedGpu, VARIANTS } from "../harness/kernel_case.ts";
import { type HostArray, runKernel } from "../harness/run_kernel.ts";
import { cases } from "./linear_cases.ts";
import { linearData, linearParameters, type LinearShape } from "./linear_matmul_cases.ts";

// The device is shared by all tests and outlives them.
const leaky = { sanitizeOps: false, sanitizeResources: false };

for (const variant of VARIANTS) {
  const label = `${variant.dtype}, ${variant.subgroups ? "with" : "without"} subgroups`;
  const all = cases(variant);
  for (const family of new Set(all.map((test) => test.family))) {
    Deno.test({
      name: `${family}() agrees with the f64 oracle (${label})`,
      ...leaky,
      fn: async () => {
        const gpu = await sharedGpu({ withoutSubgroups: !variant.subgroups });
        for (const test of all.filter((test) => test.family === family)) await checkCase(gpu, test);
      },
    });
  }
}

/** Runs a kernel and gives its `out` as 32-bit words. */
async function words(
  subgroups: boolean,
  kernel: Kernel,
  parameters: Record<string, number>,
  data: Record<string, HostArray>,
  grid?: Grid,
): Promise<Uint32Array> {
  const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
  return new Uint32Array((await runKernel(gpu, kernel, parameters, data, { grid })).outputs.out);
}

/** One row of a call's data, as the data of a call of its own. */
function singleRow(
  data: Record<string, HostArray>,
  row: number,
  k: number,
  n: number,
): Record<string, HostArray> {
  return {
    ...data,
    x: data.x.slice(row * k, (row + 1) * k),
    residual: data.residual.slice(row * n, (row + 1) * n),
    out: new Float32Array(n).fill(NaN),
  };
}

const EXACT: readonly (Pick<MatvecSpec, "norm" | "epilogue" | "vector"> & { dtype: "f16" | "f32" })[] = [
  { dtype: "f32", vector: 1, norm: false, epilogue: "residual" },
  { dtype: "f32", vector: 4, norm: true, epilogue: "glu" },
  { dtype: "f16", vector: 8, norm: true, epilogue: "none" },
];

for (const subgroups of [false, true]) {
  const label = subgroups ? "with subgroups" : "without subgroups";
  Deno.test({
    name: `matvec() gives a row the same bits whatever rowsPerPass, columns, rows and its index (${label})`,
    ...leaky,
    fn: async () => {
      const shape: LinearShape = { rows: 11, k: 1032, n: 13 };
      const { rows, k, n } = shape;
      for (const options of EXACT) {
        const data = linearData(options, shape, 7);
        const reference: Uint32Array[] = [];
        for (const [rowsPerPass, columns] of [[1, 4], [1, 1], [2, 4], [4, 2], [8, 4]] as const) {
          const kernel = matvec({ ...options, subgroups, rowsPerPass, threads: 64, columns });
          const got = await words(subgroups, kernel, linearParameters(shape), data);
          reference.push(got);
          assertEquals(got, reference[0], `${kernel.name} differs from ${options.dtype} rows 1`);
          const alone = await words(
            subgroups,
            kernel,
            linearParameters({ ...shape, rows: 1 }),
            singleRow(data, rows - 1, k, n),
          );
          assertEquals(
            alone,
            got.slice((rows - 1) * n, rows * n),
            `${kernel.name}: the last row alone differs`,
          );
        }
      }
    },
  });
}

Deno.test({
  name: "matmul() gives a row the same bits whatever the tile, rows and its index",
  ...leaky,
  fn: async () => {
    const shape: LinearShape = { rows: 133, k: 52, n: 35 };
    const { k, n } = shape;
    for (const dtype of ["f32", "f16"] as const) {
      const options = { dtype, epilogue: "residual" } as const;
      const data = linearData(options, shape, 9);
      let reference: Uint32Array | undefined;
      for (const tile of Object.keys(TILES) as (keyof typeof TILES)[]) {
        const kernel = matmul({ ...options, vectorized: true, tile });
        const got = await words(true, kernel, linearParameters(shape), data);
        reference ??= got;
        assertEquals(got, reference, `${kernel.name} differs`);
        for (const row of [6, 132]) {
          const alone = await words(
            true,
            kernel,
            linearParameters({ ...shape, rows: 1 }),
            singleRow(data, row, k, n),
          );
          assertEquals(alone, got.slice(row * n, (row + 1) * n), `${kernel.name}: row ${row} alone differs`);
        }
      }
    }
  },
});

Deno.test({
  name: "matmul() split along k gives a row the same sums whatever the tile, rows and its index",
  ...leaky,
  fn: async () => {
    const shape: LinearShape = { rows: 133, k: 116, n: 35 };
    const { rows, k, n } = shape;
    const splits = 3;
    const data = linearData({ dtype: "f32", epilogue: "none" }, shape, 10);
    const call = (rows: number) => ({ ...linearParameters({ ...shape, rows }), splits });
    const outOf = (rows: number) => ({ out: new Float32Array(splits * rows * n).fill(NaN) });
    let reference: Uint32Array | undefined;
    for (const tile of Object.keys(TILES) as (keyof typeof TILES)[]) {
      const kernel = matmul({ dtype: "f32", vectorized: true, epilogue: "split", tile });
      const got = await words(true, kernel, call(rows), { ...data, ...outOf(rows) });
      reference ??= got;
      assertEquals(got, reference, `${kernel.name} differs`);
      for (const row of [6, 132]) {
        const alone = { ...singleRow(data, row, k, n), ...outOf(1) };
        const sums = await words(true, kernel, call(1), alone);
        for (let split = 0; split < splits; split++) {
          const first = (split * rows + row) * n;
          assertEquals(
            sums.slice(split * n, (split + 1) * n),
            got.slice(first, first + n),
            `${kernel.name}: split ${split} of row ${row} alone differs`,
          );
        }
      }
    }
  },
});

Deno.test({
  name: "matmulReduce() adds the splits in order, and the residual to their sum",
  ...leaky,
  fn: async () => {
    // In this order alone the first 1 is lost to 2^24 and the last is not; a residual added first would save the first.
    const sums = Float32Array.of(1, 2 ** 24, -(2 ** 24), 1);
    const call = { rows: 1, n: 1, outputStride: 1, outputOffset: 0 };
    for (const [epilogue, residual, want] of [["none", 0, 1], ["residual", 1, 2]] as const) {
      const data = { sums, residual: Float32Array.of(residual), out: Float32Array.of(NaN) };
      const got = await words(true, matmulReduce({ splits: 4, epilogue }), call, data);
      assertEquals(new Float32Array(got.buffer)[0], want, epilogue);
    }
  },
});

Deno.test("splitDecisions() follows from a row bucket, k and n", () => {
  const at = (rows: number, k: number, n: number) => splitDecisions({ rows, k, n });
  // Llama-3-8B: down, attention output, gate and up.
  assertEquals(at(32, 14336, 4096), { tile: "small", splits: 8 });
  assertEquals(at(64, 14336, 4096), { tile: "lean", splits: 16 });
  assertEquals(at(128, 14336, 4096), { tile: "lean", splits: 8 });
  assertEquals(at(32, 4096, 4096), { tile: "small", splits: 8 });
  assertEquals(at(128, 4096, 28672), { tile: "lean", splits: 2 });
  // Enough workgroups without, parts of at least 256, 16 at most.
  assertEquals(at(32, 2048, 128256).splits, 1);
  assertEquals([1023, 1024, 1279, 1280, 65536].map((k) => at(32, k, 64).splits), [1, 4, 4, 5, 16]);
  assertEquals(at(513, 14336, 64), { tile: "medium", splits: 1 });
  // Many rows whose tiles are enough are not split.
  assertEquals(at(512, 4096, 28672), { tile: "medium", splits: 1 });
  for (const [first, last] of [[1, 32], [33, 64], [65, 128], [129, 256], [257, 512]]) {
    for (const [k, n] of [[2048, 2048], [8192, 2048], [4096, 6144], [1000, 64]]) {
      const all = Array.from({ length: last - first + 1 }, (_, i) => JSON.stringify(at(first + i, k, n)));
      assertEquals(new Set(all).size, 1);
    }
  }
});

Deno.test({
  name: "matvec(), normRows() and add() do not depend on how their grid is folded",
  ...leaky,
  fn: async () => {
    const subgroups = true;
    const shape: LinearShape = { rows: 3, k: 64, n: 17 };
    const data = linearData({ dtype: "f32", epilogue: "none" }, shape, 11);
    const decisions = { rowsPerPass: 2, vector: 4, epilogue: "none" } as const;
    const product = matvec({ ...decisions, dtype: "f32", subgroups, norm: false, threads: 32, columns: 4 });
    assertEquals(product.grid(linearParameters(shape)), [2, 5, 1]);
    const want = await words(subgroups, product, linearParameters(shape), data);
    assertEquals(await words(subgroups, product, linearParameters(shape), data, [2, 3, 2]), want);

    const norm = normRows({ kind: "rms", subgroups, vectorized: false, affine: false, threads: 32 });
    const rows = { rows: 5, width: 12, groups: 1, eps: 0 };
    const normData = { x: data.x, out: new Float32Array(64).fill(NaN) };
    const normed = await words(subgroups, norm, rows, normData);
    assertEquals(await words(subgroups, norm, rows, normData, [2, 3, 1]), normed);

    const sum = add();
    const a = Float32Array.from({ length: 1300 }, (_, i) => i);
    const sumData = { a, b: a, out: new Float32Array(1400).fill(NaN) };
    assertEquals(sum.grid({ count: 1300 }), [6, 1, 1]);
    const added = await words(subgroups, sum, { count: 1300 }, sumData);
    assertEquals(await words(subgroups, sum, { count: 1300 }, sumData, [4, 2, 1]), added);
  },
});

Deno.test("matvec() refuses 8 elements a load of f32", () => {
  const decisions = matvecDecisions({ k: 64, vector: 8, rowsPerPass: 1, epilogue: "none" });
  assertThrows(
    () =>
      matvec({
        ...decisions,
        dtype: "f32",
        vector: 8,
        subgroups: true,
        rowsPerPass: 1,
        norm: false,
        epilogue: "none",
      }),
    TypeError,
    "needs storage as f16",
  );
});

Deno.test("matvecDecisions() keeps the order of sums whatever the number of rows", () => {
  for (const k of [1, 100, 352, 2048, 14336]) {
    const threads = ([1, 2, 4, 8] as const).map((rowsPerPass) =>
      matvecDecisions({ k, vector: 8, rowsPerPass, epilogue: "glu" }).threads
    );
    assertEquals(new Set(threads).size, 1);
  }
});

Deno.test("workgroupThreads() is the smallest power of two that holds the items, within its limits", () => {
  assertEquals([0, 1, 32, 33, 200, 256, 9999].map((items) => workgroupThreads(items)), [
    32,
    32,
    32,
    64,
    256,
    256,
    256,
  ]);
  assertEquals(workgroupThreads(3, 1, 8), 4);
});
