import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { createRecorder, KernelError, readBuffer } from "../../lib/gpu/mod.ts";
import {
  bindPlan,
  compilePlan,
  createTrace,
  createWeightStore,
  createWorkspace,
  lower,
  type OpDefinition,
  type Plan,
  type Rows,
  type Value,
  valueOperand,
} from "../../lib/graph/mod.ts";
import { defineKernel, type Kernel, read, write } from "../../wgsl/kernel.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";

const gpu = await sharedGpu();
const weights = createWeightStore(gpu);
const ROWS: Rows = { name: "rows", capacity: 8, thin: false };

/** out[i] = x[i] * factor + shift: a kernel with numbers of both types. */
const AFFINE = defineKernel({
  name: "affine",
  parameters: { count: "u32", factor: "f32", shift: "u32" },
  bindings: [read("x", "array<f32>"), write("out", "array<f32>")],
  grid: ({ count }) => [count, 1, 1],
  body: `@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
  out[group.x] = x[group.x] * params.factor + f32(params.shift);
}`,
});

/** out[i] = i: what the others begin with. */
const COUNT: Kernel = defineKernel({
  name: "count",
  parameters: { count: "u32" },
  bindings: [write("out", "array<f32>")],
  grid: ({ count }) => [count, 1, 1],
  body: `@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) { out[group.x] = f32(group.x); }`,
});

function op(kernel: Kernel, numbers: Record<string, number> = {}): OpDefinition<Record<never, never>> {
  return {
    kind: kernel.name,
    lower({ inputs, outputs: [y] }, emit): void {
      emit.dispatch(
        kernel,
        [...inputs, y].map(valueOperand),
        (counts) => ({ count: counts[y.rows.name] * y.width, ...numbers }),
      );
    },
  };
}

/** A plan that counts from 0 and then takes these steps, each `x * factor + shift`. */
function chain(steps: readonly { factor: number; shift: number }[], width = 3, kernel = AFFINE): Plan {
  const rows = ROWS;
  const trace = createTrace({
    phase: "prefill",
    rows,
    logits: rows,
    sequences: 1,
    slots: {},
    ragged: false,
    lastRows: false,
    reuseDelay: 0,
    longest: 1,
    cacheType: "f32",
    features: gpu.features,
    bindingBytes: 2 ** 20,
    workgroupBytes: 16384,
  });
  let x: Value = trace.value("count", rows, width);
  trace.append(op(COUNT), [], [x], {});
  for (const [i, numbers] of steps.entries()) {
    if (i === 1) trace.segment = "head";
    const y = trace.value(`step ${i}`, rows, width);
    trace.append(op(kernel, numbers), [x], [y], {});
    x = y;
  }
  return lower(trace, [], { x });
}

Deno.test("bindPlan() replays calls with numbers of their own, for other row counts without binding again", async () => {
  // More calls than fit one aligned block, with values that tell them apart.
  const steps = Array.from({ length: 9 }, (_, i) => ({ factor: i % 2 ? 0.5 : 2, shift: i }));
  const plan = chain(steps);
  using runner = await createPlanRunner(gpu, [plan], { weights, tables: {} });
  const expected = (count: number) =>
    Array.from({ length: count }, (_, i) => steps.reduce((x, { factor, shift }) => x * factor + shift, i));
  for (const rows of [8, 1, 5]) {
    runner.run(plan, { rows });
    assertEquals([...await runner.read(plan, "x", rows)], expected(rows * 3));
  }
});

Deno.test("record() replays only the segments that are asked for", async () => {
  const plan = chain([{ factor: 2, shift: 1 }, { factor: 1, shift: 100 }]);
  using runner = await createPlanRunner(gpu, [plan], { weights, tables: {} });
  runner.run(plan, { rows: 1 }, ["body"]);
  runner.run(plan, { rows: 1 }, ["head"]);
  assertEquals([...await runner.read(plan, "x", 1)], [101, 103, 105]);
});

Deno.test("createWorkspace() shares buffers among plans by size, and grows", async () => {
  const before = gpu.memory.bytes;
  const workspace = createWorkspace(gpu);
  await workspace.fit([64, 256]);
  assertEquals(workspace.bytes, 320);
  const [large, small] = [workspace.buffer(0), workspace.buffer(1)];
  await workspace.fit([128, 32, 16]);
  assertEquals([workspace.buffer(0) === large, workspace.buffer(1).size], [true, 64]);
  assertEquals([workspace.buffer(1) === small, workspace.buffer(2).size, workspace.bytes], [true, 16, 336]);
  await workspace.fit([512]);
  assertEquals([workspace.buffer(0).size, workspace.bytes], [512, 592]);
  assertEquals(gpu.memory.bytes - before, 592);
  workspace.release();
  assertEquals([workspace.bytes, gpu.memory.bytes], [0, before]);
});

Deno.test("bindPlan() runs plans of several sizes over one workspace", async () => {
  const wide = chain([{ factor: 3, shift: 1 }], 16);
  const narrow = chain([{ factor: 1, shift: 5 }, { factor: 2, shift: 0 }], 2);
  using runner = await createPlanRunner(gpu, [narrow, wide], { weights, tables: {} });
  runner.run(wide, { rows: 1 });
  assertEquals([...(await runner.read(wide, "x", 1)).subarray(0, 3)], [1, 4, 7]);
  runner.run(narrow, { rows: 2 });
  assertEquals([...await runner.read(narrow, "x", 2)], [10, 12, 14, 16]);
});

/** Binds a plan over a workspace of its own and gives what was left allocated after a failure. */
async function bindFailure(plan: Plan, message: string, type: new () => Error): Promise<void> {
  const workspace = createWorkspace(gpu);
  await workspace.fit(plan.memory.slots);
  const before = gpu.memory.bytes;
  const missing = (name: string): GPUBuffer => {
    throw new Error(`No table ${name}`);
  };
  await assertRejects(() => bindPlan(gpu, plan, { weights, workspace, resource: missing }), type, message);
  assertEquals(gpu.memory.bytes, before, "the uniform arena is freed");
  workspace.release();
}

Deno.test("bindPlan() passes on that a kernel does not compile, and keeps nothing", async () => {
  const broken = { ...AFFINE, name: "broken", code: AFFINE.code.replace("params.factor", "params.nothing") };
  const plan = chain([{ factor: 1, shift: 1 }], 3, broken);
  await bindFailure(plan, "Kernel broken does not compile", KernelError);
  await assertRejects(() => compilePlan(gpu, plan), KernelError, "Kernel broken does not compile");
});

Deno.test("bindPlan() passes on that a weight or a table is missing, and keeps nothing", async () => {
  const plan = chain([{ factor: 1, shift: 1 }]);
  const call = plan.dispatches[1];
  const withOperand = (operand: typeof call.operands[0]): Plan => ({
    ...plan,
    dispatches: [plan.dispatches[0], { ...call, operands: [operand, call.operands[1]] }],
  });
  const weight = { name: "w", rows: 1, columns: 1, dtype: "f32" } as const;
  await bindFailure(withOperand({ type: "weight", weight, part: 0 }), "Weight w is not on the GPU", Error);
  await bindFailure(withOperand({ type: "resource", name: "tokens" }), "No table tokens", Error);
});

Deno.test("setCounts() names the parameter that an op leaves out", async () => {
  const plan = chain([{ factor: 1, shift: 1 }]);
  const call = plan.dispatches[1];
  const workspace = createWorkspace(gpu);
  await workspace.fit(plan.memory.slots);
  const bound = await bindPlan(gpu, {
    ...plan,
    dispatches: [plan.dispatches[0], { ...call, parameters: () => ({ count: 1, shift: 2 }) }],
  }, { weights, workspace, resource: () => workspace.buffer(0) });
  assertThrows(() => bound.setCounts({ rows: 1 }), TypeError, "Kernel affine: parameter factor has no value");
  bound.release();
  workspace.release();
});

Deno.test("bindPlan() counts its uniform arena as activations until it is released", async () => {
  const plan = chain([{ factor: 1, shift: 1 }, { factor: 1, shift: 1 }]);
  const workspace = createWorkspace(gpu);
  await workspace.fit(plan.memory.slots);
  const before = gpu.memory.holders().activations;
  const bound = await bindPlan(gpu, plan, { weights, workspace, resource: () => workspace.buffer(0) });
  assertEquals(gpu.memory.holders().activations - before, bound.bytes);
  assertEquals(bound.bytes % (3 * gpu.limits.minUniformBufferOffsetAlignment), 0);
  // Bound, it is recorded into any recorder.
  bound.setCounts({ rows: 2 });
  const recorder = createRecorder(gpu);
  bound.record(recorder, ["body", "head"]);
  gpu.device.queue.submit([recorder.finish()]);
  const { buffer, offset, stride } = bound.result("x");
  assertEquals([offset, stride], [0, 3]);
  assertEquals([...new Float32Array(await readBuffer(gpu, buffer, 0, 12))], [2, 3, 4]);
  bound.release();
  workspace.release();
});
