// Linears of a batch's decode step, whose k is split when it is long.

import { assert, assertEquals, assertLess } from "@std/assert";
import {
  lower,
  type OpDefinition,
  type Plan,
  resource,
  type Rows,
  type Target,
  type Trace,
  type Value,
  valueOperand,
} from "../../lib/graph/mod.ts";
import { add, fusions, linear } from "../../lib/ops/mod.ts";
import { defineKernel, read, write } from "../../wgsl/kernel.ts";
import { relativeError } from "../harness/compare.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";
import { randomWeights } from "../harness/random_weights.ts";
import { limitGpu } from "../harness/replace_members.ts";
import { linearOracle } from "../oracles/linear.ts";
import { range, THIN_ROWS, traceFor, weightOf } from "./trace_target.ts";

const K = 1024;
const N = 70;
const WEIGHT = weightOf("w", N, K);
const BATCH: Rows = { name: "rows", capacity: 16, thin: false };

/** A table's numbers as a value. */
const tableOp: OpDefinition<{ readonly table: string }> = {
  kind: "table",
  lower({ outputs: [y], attributes: { table } }, emit): void {
    const kernel = defineKernel({
      name: "copy",
      parameters: { count: "u32" },
      bindings: [read("table", "array<f32>"), write("out", "array<f32>")],
      grid: ({ count }) => [Math.ceil(count / 64), 1, 1],
      body: `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < params.count) { out[id.x] = table[id.x]; }
}`,
    });
    emit.dispatch(kernel, [resource(table), valueOperand(y)], (counts) => ({
      count: counts[y.rows.name] * y.width,
    }));
  },
};

function fromTable(trace: Trace, table: string, width: number, rows = BATCH): Value {
  const y = trace.value(table, rows, width);
  trace.append(tableOp, [], [y], { table });
  return y;
}

/** Plans a linear of a batch's decode step. */
function planOf(
  { rows = BATCH, k = K, n = N, ...target }: Partial<Target> & { rows?: Rows; k?: number; n?: number } = {},
): Plan {
  const trace = traceFor(rows, { phase: "decode", ...target });
  const weight = weightOf("w", n, k);
  return lower(trace, fusions, { y: linear(trace, fromTable(trace, "x", k, rows), range(weight, 0, n)) });
}

function splitsOf(plan: Plan): number {
  const reduce = plan.dispatches.map(({ kernel: { name } }) => name.match(/^matmulReduce splits (\d+)/)?.[1]);
  return Number(reduce.find((splits) => splits) ?? 1);
}

for (const residual of [false, true]) {
  const label = residual ? "with a residual" : "without a residual";
  Deno.test(`linear() of a decode batch splits k, in whatever parts the weight stands (${label})`, async () => {
    const x = randomArray(BATCH.capacity * K, 1) as Float32Array<ArrayBuffer>;
    const other = randomArray(BATCH.capacity * N, 2) as Float32Array<ArrayBuffer>;
    const view = range(WEIGHT, 3, 61);
    const outputs: Float32Array[] = [];
    for (const partRows of [N, 32, 19]) {
      const bindingBytes = partRows * K * 4;
      const gpu = limitGpu(await sharedGpu(), { maxStorageBufferBindingSize: bindingBytes });
      const trace = traceFor(BATCH, { phase: "decode", features: gpu.features, bindingBytes });
      const product = linear(trace, fromTable(trace, "x", K), view);
      const y = residual ? add(trace, product, fromTable(trace, "other", view.rows)) : product;
      const plan = lower(trace, fusions, { y });
      const linears = plan.dispatches.filter(({ operation }) => operation === "linear");
      assertEquals(splitsOf(plan), 4);
      assertEquals(linears.length, Math.ceil(N / partRows) + 1);
      assert(plan.dispatches.every(({ operation }) => operation !== "add"), "the residual is fused");
      using weights = await randomWeights(gpu, [WEIGHT]);
      using runner = await createPlanRunner(gpu, [plan], {
        weights: weights.store,
        tables: { x, other },
      });
      // Fewer rows than the plan has room for.
      const rows = 11;
      runner.run(plan, { rows });
      const got = await runner.read(plan, "y", rows);
      const want = linearOracle(Float64Array.from(x), weights.values(WEIGHT), {
        rows,
        k: K,
        n: view.rows,
        firstRow: view.first,
      });
      if (residual) want.forEach((value, i) => want[i] = value + other[i]);
      assertLess(relativeError(got, want), 1e-6);
      outputs.push(got);
    }
    assertEquals(outputs[1], outputs[0]);
    assertEquals(outputs[2], outputs[0]);
  });
}

Deno.test("linear() splits k for batches of decode only, and only when it is long", () => {
  assertEquals(splitsOf(planOf()), 4);
  assertEquals(splitsOf(planOf({ k: 1023 })), 1);
  assertEquals(splitsOf(planOf({ phase: "prefill" })), 1);
  assertEquals(splitsOf(planOf({ rows: THIN_ROWS })), 1);
  assertEquals(splitsOf(planOf({ rows: { ...BATCH, capacity: 128 } })), 4);
  assertEquals(splitsOf(planOf({ rows: { ...BATCH, capacity: 129 } })), 4);
  assertEquals(splitsOf(planOf({ rows: { ...BATCH, capacity: 513 } })), 1);
});

Deno.test("linear() splits k into fewer parts when their sums are over the binding limit", () => {
  const n = 600;
  const splitBytes = BATCH.capacity * n * 4;
  assertEquals(splitsOf(planOf({ n })), 4);
  assertEquals(splitsOf(planOf({ n, bindingBytes: 4 * splitBytes })), 4);
  assertEquals(splitsOf(planOf({ n, bindingBytes: 4 * splitBytes - 1 })), 3);
  assertEquals(splitsOf(planOf({ n, bindingBytes: 2 * splitBytes - 1 })), 1);
});
