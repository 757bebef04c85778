// Linears with biases: packed, with residuals and gates, in parts of a weight, with k split.

import { assertEquals, assertLess, assertThrows } from "@std/assert";
import {
  lower,
  type Rows,
  type Trace,
  type Value,
  type Weight,
  type WeightView,
} from "../../lib/graph/mod.ts";
import { add, embedding, fusions, glu, linear, rmsNorm } from "../../lib/ops/mod.ts";
import { fuseNorm, fuseResidual, packLinears } from "../../lib/ops/fuse.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";
import { randomWeights } from "../harness/random_weights.ts";
import { limitGpu } from "../harness/replace_members.ts";
import { gatherRowsOracle, gluOracle, linearOracle, rmsNormOracle } from "../oracles/linear.ts";
import { range, ROWS, THIN_ROWS, traceFor, weightOf } from "./trace_target.ts";

const WIDTH = 12;
const TOKENS = [3, 0];
const TABLE = weightOf("table", 5, WIDTH);
const WEIGHT = weightOf("w", 32, WIDTH);
const BIAS = weightOf("b", 1, 34);

const biasOf = ({ first, rows }: WeightView, bias = BIAS): WeightView => range(bias, first + 1, rows);

/** Runs what `build` makes of the embeddings of {@linkcode TOKENS}. */
async function run(
  build: (trace: Trace, x: Value) => Value,
  { rows, partRows = 32, decode = false, table = TABLE, weights: [weight, bias] = [WEIGHT, BIAS] }: {
    rows: Rows;
    partRows?: number;
    decode?: boolean;
    table?: Weight;
    weights?: [Weight, Weight];
  },
) {
  const limit = partRows * weight.columns * 4;
  const gpu = limitGpu(await sharedGpu(), { maxStorageBufferBindingSize: limit });
  const phase = decode ? "decode" : "prefill";
  const trace = traceFor(rows, { phase, features: gpu.features, bindingBytes: limit });
  const plan = lower(trace, fusions, { y: build(trace, embedding(trace, table)) });
  using store = await randomWeights(gpu, [table, weight, bias]);
  const states = Uint32Array.from(TOKENS.flatMap((token) => [0, 0, token, 0, 0, 0, 0, 0]));
  using runner = await createPlanRunner(gpu, [plan], {
    weights: store.store,
    tables: { rows: Uint32Array.from(TOKENS.flatMap((token, i) => [token, i, 0, 0])), states },
  });
  runner.run(plan, { rows: TOKENS.length });
  const x = gatherRowsOracle(store.values(table), TOKENS, table.columns);
  const product = (view: WeightView, input = x) => {
    const { first, rows: n } = view;
    const dots = linearOracle(input, store.values(weight), {
      rows: 2,
      k: weight.columns,
      n,
      firstRow: first,
    });
    return dots.map((dot, i) => dot + store.values(bias)[biasOf(view, bias).first + i % n]);
  };
  const kernels = plan.dispatches.filter(({ operation }) => operation !== "embedding").map(({ kernel }) =>
    kernel.name
  );
  return { got: await runner.read(plan, "y", 2), x, product, kernels };
}

for (const rows of [THIN_ROWS, { ...ROWS, capacity: 2 }]) {
  const label = rows.thin ? "few rows" : "many rows";

  Deno.test(`linear() adds any range of a bias, in whatever parts the weight stands (${label})`, async () => {
    for (const [first, count] of [[0, 32], [5, 20], [31, 1]]) {
      const view = range(WEIGHT, first, count);
      for (const partRows of [32, 9]) {
        const { got, product } = await run((trace, x) => linear(trace, x, view, "y", biasOf(view)), {
          rows,
          partRows,
        });
        assertLess(relativeError(got, product(view)), 1e-6, `rows ${first} to ${first + count}`);
      }
    }
  });

  Deno.test(`linear() with a bias is packed with its neighbours and takes a residual (${label})`, async () => {
    const [gate, up] = [range(WEIGHT, 3, 12), range(WEIGHT, 15, 12)];
    const { got, product, x, kernels } = await run((trace, x) => {
      const [a, b] = [gate, up].map((view) => linear(trace, x, view, "y", biasOf(view)));
      const square = range(WEIGHT, 1, WIDTH);
      return add(trace, x, linear(trace, glu(trace, a, b, "gelu"), square, "down", biasOf(square)));
    }, { rows });
    const both = product(range(WEIGHT, 3, 24));
    const gated = gluOracle(both, 2, WIDTH, "gelu");
    const want = product(range(WEIGHT, 1, WIDTH), gated).map((value, i) => value + x[i]);
    assertLess(relativeError(got, want), 1e-6);
    assertEquals(kernels.length, rows.thin ? 2 : 3, kernels.join(", "));
  });
}

Deno.test("linear() of a decode batch adds its bias to sums over the parts of k", async () => {
  const [table, weight, bias] = [weightOf("t", 5, 1024), weightOf("wide", 40, 1024), weightOf("b", 1, 41)];
  const rows: Rows = { name: "rows", capacity: 16, thin: false };
  const view = range(weight, 3, 30);
  const { got, product, kernels } = await run(
    (trace, x) => linear(trace, x, view, "y", biasOf(view, bias)),
    { rows, decode: true, table, weights: [weight, bias], partRows: 64 },
  );
  assertLess(relativeError(got, product(view)), 1e-6);
  assertEquals(kernels.map((name) => name.split(" ")[0]), ["matmul", "matmulReduce"]);
});

Deno.test("linear() of few rows computes a norm without a weight, and adds its bias after", async () => {
  const view = range(WEIGHT, 3, 12);
  const { got, product, x, kernels } = await run(
    (trace, x) => linear(trace, rmsNorm(trace, x, undefined, 1e-5), view, "y", biasOf(view)),
    { rows: THIN_ROWS },
  );
  const normed = rmsNormOracle(x, undefined, { rows: 2, width: WIDTH, eps: 1e-5 });
  assertLess(relativeError(got, product(view, normed)), 1e-6);
  assertEquals(kernels.length, 1);
});

Deno.test("packLinears() leaves linears whose biases are not adjacent, or of which one has none", () => {
  const pack = (first: WeightView | undefined, second: WeightView | undefined) => {
    const trace = traceFor();
    const x = trace.value("x", ROWS, WIDTH);
    linear(trace, x, range(WEIGHT, 0, 8), "a", first);
    linear(trace, x, range(WEIGHT, 8, 16), "b", second);
    return [packLinears, fuseNorm, fuseResidual].reduce<readonly unknown[]>(
      (operations, rewrite) => rewrite(operations as typeof trace.operations, trace),
      trace.operations,
    ).length;
  };
  const other = weightOf("other", 1, 34);
  assertEquals(pack(range(BIAS, 2, 8), range(BIAS, 10, 16)), 1);
  assertEquals(pack(range(BIAS, 2, 8), range(BIAS, 11, 16)), 2);
  assertEquals(pack(range(BIAS, 2, 8), range(other, 10, 16)), 2);
  assertEquals(pack(range(BIAS, 2, 8), undefined), 2);
  assertEquals(pack(undefined, range(BIAS, 10, 16)), 2);
  assertEquals(pack(undefined, undefined), 1);
});

Deno.test("linear() refuses a bias of another shape or type", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, WIDTH);
  const view = range(WEIGHT, 0, 8);
  const cases: [WeightView, string][] = [
    [range(BIAS, 0, 7), "linear w takes 8 numbers of its bias b of 34: current range is 7 from 0 on"],
    [range(BIAS, 27, 8), "current range is 8 from 27 on"],
    [range({ ...BIAS, dtype: "f16" }, 0, 8), "its bias b is [1, 34] as f16, it must be one row of f32"],
    [range(weightOf("b", 2, 17), 0, 8), "its bias b is [2, 17] as f32"],
  ];
  for (const [bias, message] of cases) {
    assertThrows(() => linear(trace, x, view, "y", bias), TypeError, message);
  }
});
