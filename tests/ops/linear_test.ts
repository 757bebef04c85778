import { assertEquals, assertLess } from "@std/assert";
import {
  lower,
  type OpDefinition,
  type Rows,
  type Trace,
  type Value,
  valueOperand,
  type WeightView,
} from "../../lib/graph/mod.ts";
import { alignRows, embedding, fusions, glu, linear } from "../../lib/ops/mod.ts";
import { defineKernel, write } from "../../wgsl/kernel.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";
import { randomWeights } from "../harness/random_weights.ts";
import { limitGpu } from "../harness/replace_members.ts";
import { gatherRowsOracle, gluOracle, linearOracle } from "../oracles/linear.ts";
import { range, ROWS, THIN_ROWS, traceFor, weightOf } from "./trace_target.ts";

const WIDTH = 12;
const ROW_BYTES = WIDTH * 4;
const TOKENS = [3, 0];
const TABLE = weightOf("table", 5, WIDTH);
const WEIGHT = weightOf("w", 32, WIDTH);

/** Runs what `build` makes of the embeddings of {@linkcode TOKENS}, with so many weight rows to a binding. */
async function run(
  build: (trace: Trace, x: Value) => Value,
  { rows, partRows, tables = {}, counts = {} }: {
    rows: Rows;
    partRows: number;
    tables?: Record<string, Uint32Array<ArrayBuffer>>;
    counts?: Record<string, number>;
  },
) {
  const limit = partRows * ROW_BYTES;
  const gpu = limitGpu(await sharedGpu(), { maxStorageBufferBindingSize: limit });
  const trace = traceFor(rows, { phase: "prefill", features: gpu.features, bindingBytes: limit });
  const y = build(trace, embedding(trace, TABLE));
  const plan = lower(trace, fusions, { y });
  using weights = await randomWeights(gpu, [TABLE, WEIGHT]);
  using runner = await createPlanRunner(gpu, [plan], {
    weights: weights.store,
    tables: { rows: Uint32Array.from(TOKENS.flatMap((token, i) => [token, 0, i, i])), ...tables },
  });
  runner.run(plan, { rows: TOKENS.length, ...counts });
  return {
    plan,
    got: await runner.read(plan, "y", counts[y.rows.name] ?? TOKENS.length),
    x: gatherRowsOracle(weights.values(TABLE), TOKENS, WIDTH),
    w: weights.values(WEIGHT),
  };
}

/** What a view of the weight gives. */
function product(x: Float64Array, w: Float64Array, { first, rows: n }: WeightView): Float64Array {
  return linearOracle(x, w, { rows: TOKENS.length, k: WIDTH, n, firstRow: first });
}

for (const rows of [THIN_ROWS, { ...ROWS, capacity: 2 }]) {
  const label = rows.thin ? "few rows" : "many rows";
  Deno.test(`linear() takes any range of a weight, in whatever parts it stands (${label})`, async () => {
    for (const [first, count] of [[0, 32], [5, 20], [17, 3], [31, 1]]) {
      const view = range(WEIGHT, first, count);
      const outputs = [];
      for (const partRows of [32, 16, 9]) {
        const { got, x, w, plan } = await run((trace, x) => linear(trace, x, view), { rows, partRows });
        assertLess(relativeError(got, product(x, w, view)), 1e-6, `rows ${first} to ${first + count}`);
        outputs.push(got);
        if (count === 32) {
          const calls = plan.dispatches.filter(({ operation }) => operation === "linear").length;
          assertEquals(calls, Math.ceil(32 / partRows));
        }
      }
      assertEquals(outputs[1], outputs[0]);
      assertEquals(outputs[2], outputs[0]);
    }
  });
}

Deno.test("glu() is fused where gate and up stand in one part, whichever it is", async () => {
  for (const [first, partRows, kinds] of [[2, 32, 1], [18, 16, 1], [10, 16, 3]]) {
    const [gate, up] = [range(WEIGHT, first, 6), range(WEIGHT, first + 6, 6)];
    const { got, x, w, plan } = await run(
      (trace, x) => glu(trace, linear(trace, x, gate), linear(trace, x, up), "silu"),
      { rows: THIN_ROWS, partRows },
    );
    const both = product(x, w, range(WEIGHT, first, 12));
    assertLess(relativeError(got, gluOracle(both, TOKENS.length, 6)), 1e-6);
    // Else two linears, one a part, and the product by itself.
    const calls = plan.dispatches.filter(({ operation }) => operation !== "embedding").length;
    assertEquals(calls, kinds, `rows ${first} to ${first + 12}`);
  }
});

Deno.test("alignRows() follows maps of maps", async () => {
  const first: Rows = { name: "first", capacity: 3, thin: false, from: { rows: ROWS, map: "first map" } };
  const second: Rows = { name: "second", capacity: 2, thin: false, from: { rows: first, map: "second map" } };
  const { got, x } = await run((trace, x) => alignRows(trace, x, second), {
    rows: ROWS,
    partRows: 32,
    tables: { "first map": Uint32Array.from([1, 1, 0]), "second map": Uint32Array.from([2, 0]) },
    counts: { first: 3, second: 2 },
  });
  assertLess(relativeError(got, gatherRowsOracle(x, [0, 1], WIDTH)), 1e-7);
});

Deno.test("alignRows() gathers from columns of a wider value", async () => {
  const picked: Rows = { name: "picked", capacity: 3, thin: false, from: { rows: ROWS, map: "map" } };
  const map = [1, 0, 1];
  const { got, x, w, plan } = await run((trace, x) => {
    const parts = [range(WEIGHT, 3, 5), range(WEIGHT, 8, 7)].map((view) => linear(trace, x, view));
    return parts.map((part) => alignRows(trace, part, picked))[1];
  }, { rows: ROWS, partRows: 32, tables: { map: Uint32Array.from(map) }, counts: { picked: 3 } });
  const whole = product(x, w, range(WEIGHT, 8, 7));
  assertLess(relativeError(got, gatherRowsOracle(whole, map, 7)), 1e-6);
  assertEquals(plan.dispatches.filter(({ operation }) => operation === "linear").length, 1);
});

/** Row indexes that the plan makes itself: 1, 0. */
const swapped: OpDefinition<Record<never, never>> = {
  kind: "swapped",
  lower({ outputs: [y] }, emit): void {
    const kernel = defineKernel({
      name: "swapped",
      parameters: { rows: "u32" },
      bindings: [write("out", "array<u32>")],
      grid: () => [1, 1, 1],
      body: "@compute @workgroup_size(1) fn main() { out[0] = params.rows - 1u; out[1] = 0u; }",
    });
    emit.dispatch(kernel, [valueOperand(y)], () => ({ rows: 2 }));
  },
};

Deno.test("alignRows() follows a map that the plan makes itself", async () => {
  const { got, x } = await run((trace, x) => {
    const map = trace.value("map", ROWS, 1);
    trace.append(swapped, [], [map], {});
    return alignRows(trace, x, { name: "picked", capacity: 2, thin: false, from: { rows: ROWS, map } });
  }, { rows: ROWS, partRows: 32, counts: { picked: 2 } });
  assertLess(relativeError(got, gatherRowsOracle(x, [1, 0], WIDTH)), 1e-7);
});
