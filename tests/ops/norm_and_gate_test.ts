// Norms, gates and embeddings of positions as ops: in plans, over views, with weights in parts.

import { assertEquals, assertLess } from "@std/assert";
import { lower, type Trace, type Value, type Weight } from "../../lib/graph/mod.ts";
import { type Hidden, hidden, type Layer, layerNorm, leaf, parallel, rmsNorm } from "../../lib/layers/mod.ts";
import { embedding, fusions, linear, multiply, normRows, positionEmbedding } from "../../lib/ops/mod.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";
import { randomWeights } from "../harness/random_weights.ts";
import { limitGpu } from "../harness/replace_members.ts";
import { gatherRowsOracle, gluOracle, linearOracle, normRowsOracle } from "../oracles/linear.ts";
import { range, ROWS, THIN_ROWS, traceFor, weightOf } from "./trace_target.ts";

const WIDTH = 12;
const TOKENS = [3, 0, 4];
const TABLE = weightOf("table", 5, WIDTH);

/** Runs what `build` makes of the embeddings of {@linkcode TOKENS}, at positions 2, 3, 4. */
async function run(
  build: (trace: Trace, x: Value) => Value,
  weights: readonly Weight[] = [],
  { rows = ROWS, partRows = 1000 }: { rows?: typeof ROWS; partRows?: number } = {},
) {
  const limit = partRows * WIDTH * 4;
  const gpu = limitGpu(await sharedGpu(), { maxStorageBufferBindingSize: limit });
  const trace = traceFor(rows, { phase: "prefill", features: gpu.features, bindingBytes: limit });
  const plan = lower(trace, fusions, { y: build(trace, embedding(trace, TABLE)) });
  using store = await randomWeights(gpu, [TABLE, ...weights]);
  using runner = await createPlanRunner(gpu, [plan], {
    weights: store.store,
    tables: { rows: Uint32Array.from(TOKENS.flatMap((token, i) => [token, 0, i + 2, i])) },
  });
  runner.run(plan, { rows: TOKENS.length });
  return {
    got: await runner.read(plan, "y", TOKENS.length),
    x: gatherRowsOracle(store.values(TABLE), TOKENS, WIDTH),
    values: weights.map((weight) => store.values(weight)),
    kernels: plan.dispatches.slice(1).map(({ kernel }) => kernel.name.split(" ")[0]),
  };
}

const shape = { rows: TOKENS.length, width: WIDTH };

Deno.test("normRows() norms rows and their groups, with and without parameters", async () => {
  for (const kind of ["rms", "layer"] as const) {
    for (const epsilonPlacement of ["inside", "additive"] as const) {
      for (const [groups, columns] of [[1, 0], [1, WIDTH], [3, 0], [3, WIDTH], [3, 4], [4, 3]]) {
        const parameters = columns ? [weightOf("gain", 1, columns), weightOf("shift", 1, columns)] : [];
        const { got, x, values } = await run((trace, x) =>
          normRows(trace, x, {
            kind,
            epsilon: 1e-3,
            epsilonPlacement,
            groups,
            ...(columns ? { weight: parameters[0], bias: parameters[1] } : {}),
          }), parameters);
        const want = normRowsOracle(x, {
          ...shape,
          kind,
          epsilon: 1e-3,
          additive: epsilonPlacement === "additive",
          groups,
          ...(columns ? { weight: values[0], bias: values[1] } : {}),
        });
        assertLess(relativeError(got, want), 1e-6, `${kind} ${epsilonPlacement} ${groups} ${columns}`);
      }
    }
  }
});

Deno.test("normRows() of few rows keeps its epsilon beside the root when a linear follows", async () => {
  const weight = weightOf("w", 7, WIDTH);
  const { got, x, values, kernels } = await run(
    (trace, x) =>
      linear(
        trace,
        normRows(trace, x, { kind: "rms", epsilon: 0.5, epsilonPlacement: "additive" }),
        range(weight, 0, 7),
      ),
    [weight],
    { rows: { ...THIN_ROWS, capacity: 3 } },
  );
  const normed = normRowsOracle(x, { ...shape, kind: "rms", epsilon: 0.5, additive: true });
  assertLess(relativeError(got, linearOracle(normed, values[0], { rows: 3, k: WIDTH, n: 7 })), 1e-6);
  assertEquals(kernels, ["rmsNorm", "matvec"]);
});

Deno.test("multiply() takes its gate and its factor from columns of wider values", async () => {
  const weight = weightOf("w", 30, WIDTH);
  const { got, x, values, kernels } = await run((trace, x) => {
    const [a, , gate] = [[0, 9], [9, 5], [14, 9]].map(([first, rows]) =>
      linear(trace, x, range(weight, first, rows))
    );
    return multiply(trace, a, gate, "sigmoid");
  }, [weight]);
  const product = (first: number) => linearOracle(x, values[0], { rows: 3, k: WIDTH, n: 9, firstRow: first });
  const [a, gate] = [product(0), product(14)];
  const both = Float64Array.from({ length: 54 }, (_, i) => {
    const at = Math.floor(i / 18) * 9 + i % 9;
    return i % 18 < 9 ? gate[at] : a[at];
  });
  assertLess(relativeError(got, gluOracle(both, 3, 9, "sigmoid")), 1e-6);
  assertEquals(kernels, ["matmul", "glu"]);
});

Deno.test("positionEmbedding() takes a learned table in whatever parts it stands", async () => {
  const table = weightOf("positions", 9, WIDTH);
  for (const [partRows, parts] of [[9, 1], [5, 2]]) {
    const { got, x, values, kernels } = await run(
      (trace, x) => positionEmbedding(trace, x, { table, offset: 1 }),
      [table],
      { rows: { ...ROWS, capacity: 3 }, partRows },
    );
    const learned = gatherRowsOracle(values[0], [3, 4, 5], WIDTH);
    assertLess(relativeError(got, x.map((value, i) => value + learned[i])), 1e-6);
    assertEquals(kernels.length, parts);
  }
});

Deno.test("parallel() sums what its branches make of one input, and can be mapped over", async () => {
  const branches = parallel(
    rmsNorm(undefined, 1e-5),
    layerNorm({ epsilon: 1e-5 }),
    rmsNorm(undefined, 1, "additive"),
  );
  const { got, x } = await run((trace, x) => branches.apply(trace, hidden(x)).value);
  const wants = [
    normRowsOracle(x, { ...shape, kind: "rms", epsilon: 1e-5 }),
    normRowsOracle(x, { ...shape, kind: "layer", epsilon: 1e-5 }),
    normRowsOracle(x, { ...shape, kind: "rms", epsilon: 1, additive: true }),
  ];
  assertLess(relativeError(got, x.map((_, i) => wants[0][i] + wants[1][i] + wants[2][i])), 1e-6);
  const still: Layer<Hidden, Hidden> = leaf("still", {}, (_, x) => x);
  const { layers } = branches.rebuild([still, still]);
  assertEquals(layers.map(({ kind }) => kind), ["still", "still"]);
});
