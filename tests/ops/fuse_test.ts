import { assert, assertEquals, assertLess, assertThrows } from "@std/assert";
import {
  kernelCounts,
  lower,
  type Plan,
  printPlan,
  type Rewrite,
  type Rows,
  type Trace,
  type Value,
  type Weight,
  whole,
} from "../../lib/graph/mod.ts";
import { describeModel } from "../../lib/models/mod.ts";
import { fuseGlu, fuseNorm, fuseResidual, packLinears } from "../../lib/ops/fuse.ts";
import { add, embedding, fusions, glu, linear, rmsNorm } from "../../lib/ops/mod.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { logitPlan, pipelineLogits } from "../harness/pipeline_logits.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";
import { NOVEL_LLAMA } from "../harness/models.ts";
import { randomWeights } from "../harness/random_weights.ts";
import { linearOracle, rmsNormOracle } from "../oracles/linear.ts";
import { range, ROWS, THIN_ROWS, traceFor, weightOf } from "./trace_target.ts";

/** What even an unfused model needs: attention takes ranges of one linear. */
const NOT_FUSED: readonly Rewrite[] = [packLinears];

const WITH_ONE: Record<string, readonly Rewrite[]> = {
  fuseGlu: [fuseGlu, packLinears],
  fuseNorm: [packLinears, fuseNorm],
  fuseResidual: [packLinears, fuseResidual],
};

const SHAPES = [
  { num_attention_heads: 6, num_key_value_heads: 2, head_dim: 8, hidden_size: 36, intermediate_size: 40 },
  {
    hidden_size: 30,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    head_dim: 12,
    intermediate_size: 7,
    vocab_size: 33,
  },
];

for (const [i, shape] of SHAPES.entries()) {
  Deno.test(`fusions change no logits beyond rounding (shape ${i + 1})`, async () => {
    const gpu = await sharedGpu();
    const made = randomLlama(shape, i + 1);
    using model = await loadRandomLlama(gpu, made);
    const sequences = [9, 4].map((length, seed) => randomIds(length, made.config.vocab_size, seed));
    const options = { prefillRows: 5, decode: 3 };
    const plain = await pipelineLogits(model, sequences, { ...options, rewrites: NOT_FUSED });
    for (const [name, rewrites] of [["all", fusions] as const, ...Object.entries(WITH_ONE)]) {
      const fused = await pipelineLogits(model, sequences, { ...options, rewrites });
      fused.logits.forEach((logits, s) => assertLess(relativeError(logits, plain.logits[s]), 1e-5, name));
      const calls = ({ plans }: typeof fused) => plans.map(({ dispatches }) => dispatches.length);
      assert(calls(fused)[1] < calls(plain)[1], `${name} saves no call in decode`);
    }
  });
}

/** Plans of the model that comes along, made without a GPU. */
async function novelPlan(phase: "prefill" | "decode", rewrites: readonly Rewrite[]): Promise<Plan> {
  const model = await describeModel(NOVEL_LLAMA);
  const rows = phase === "decode" ? THIN_ROWS : ROWS;
  const logits: Rows = phase === "decode"
    ? rows
    : { ...ROWS, name: "logits", from: { rows, map: "logitRows" } };
  return logitPlan(model, { ...traceFor(rows).target, logits }, rewrites);
}

Deno.test("fusions leave 7 kernel calls a layer in decode and 9 in prefill", async () => {
  const layers = 6;
  const calls = async (phase: "prefill" | "decode", rewrites: readonly Rewrite[]) =>
    (await novelPlan(phase, rewrites)).dispatches.length;
  // Outside of the layers: embedding, cacheAppend, the head; a norm and a gather where they are not fused or needless.
  assertEquals(await calls("decode", fusions), 7 * layers + 3);
  assertEquals(await calls("decode", NOT_FUSED), 12 * layers + 4);
  assertEquals(await calls("prefill", fusions), 9 * layers + 5);
  assertEquals(await calls("prefill", NOT_FUSED), 11 * layers + 5);
  const counts = kernelCounts(await novelPlan("decode", fusions));
  assertEquals(counts.filter(({ name }) => /rmsNorm|^add|^glu/.test(name)), []);
});

Deno.test("printPlan() prints a model's plan without a GPU", async () => {
  const lines = printPlan(await novelPlan("decode", fusions)).split("\n");
  assertEquals(lines[0], "decode plan for up to 2 rows: 45 kernel calls");
  assert(
    /^ {3}0 body {3}embedding f16 x4 from state\(rows, states, embed_tokens \[4096, 128\] f16, embedding \[rows, 128\] #0\)$/
      .test(lines[1]),
    lines[1],
  );
  assert(
    /^ {2}44 head {3}matvec f16 .* norm none\(.*model\.norm \[1, 128\] f32, logits \[rows, 4096\] #\d+\)$/
      .test(lines[45]),
    lines[45],
  );
  assertEquals(lines[46].startsWith("buffers, "), true);
});

/** Kinds of the operations that are left. */
function kinds(trace: Trace, ...rewrites: Rewrite[]): string[] {
  let operations: ReturnType<Rewrite> = trace.operations;
  for (const rewrite of rewrites) operations = rewrite(operations, trace);
  return operations.map(({ definition }) => definition.kind);
}

const NORM = weightOf("norm", 1, 12);
const SQUARE = weightOf("square", 12, 12);

Deno.test("fuseNorm() leaves a norm that something else reads, and norms of many rows", () => {
  const norm = (rows: Rows, others: (trace: Trace, y: Value) => void) => {
    const trace = traceFor(rows);
    const y = rmsNorm(trace, trace.value("x", rows, 12), NORM, 1e-5);
    linear(trace, y, whole(SQUARE));
    others(trace, y);
    return kinds(trace, fuseNorm);
  };
  assertEquals(norm(THIN_ROWS, () => {}), ["linear"]);
  assertEquals(norm(THIN_ROWS, (trace, y) => linear(trace, y, whole(SQUARE))), [
    "rmsNorm",
    "linear",
    "linear",
  ]);
  assertEquals(norm(THIN_ROWS, (trace, y) => add(trace, y, y)), ["rmsNorm", "linear", "add"]);
  assertEquals(norm(ROWS, () => {}), ["rmsNorm", "linear"]);
});

Deno.test("fuseResidual() leaves sums of what something else reads, of a value with itself, and of no linear", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  const y = linear(trace, x, whole(SQUARE));
  const sum = add(trace, x, y);
  const twice = linear(trace, sum, whole(SQUARE));
  add(trace, add(trace, twice, sum), twice);
  const self = linear(trace, sum, whole(SQUARE));
  add(trace, self, self);
  add(trace, x, sum);
  assertEquals(kinds(trace, fuseResidual), ["linear", "linear", "add", "add", "linear", "add", "add"]);
});

Deno.test("fuseResidual() takes one of two linears that are added", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  add(trace, linear(trace, x, whole(SQUARE)), linear(trace, x, whole(weightOf("other", 12, 12))));
  assertEquals(kinds(trace, fuseResidual), ["linear", "linear"]);
});

Deno.test("fuseGlu() leaves gate and up that stand in different parts of a weight or are read elsewhere", () => {
  const weight = weightOf("gate_up", 32, 12);
  const feed = (
    bindingBytes: number,
    rows = THIN_ROWS,
    others: (trace: Trace, gate: Value) => void = () => {},
  ) => {
    const trace = traceFor(rows, { bindingBytes });
    const x = trace.value("x", rows, 12);
    const gate = linear(trace, x, range(weight, 0, 16));
    glu(trace, gate, linear(trace, x, range(weight, 16, 16)), "silu");
    others(trace, gate);
    return kinds(trace, fuseGlu);
  };
  const rowBytes = 12 * 4;
  assertEquals(feed(32 * rowBytes), ["linear"]);
  assertEquals(feed(31 * rowBytes), ["linear", "linear", "glu"]);
  assertEquals(feed(32 * rowBytes, ROWS), ["linear", "linear", "glu"]);
  const reader = (trace: Trace, gate: Value) => void rmsNorm(trace, gate, undefined, 0);
  assertEquals(feed(32 * rowBytes, THIN_ROWS, reader), ["linear", "linear", "glu", "rmsNorm"]);
});

Deno.test("packLinears() packs only adjacent ranges, in order, of one input and one weight", () => {
  const weight = weightOf("fused", 24, 12);
  const pack = (first: [number, number], second: [number, number], other?: Weight) => {
    const trace = traceFor();
    const x = trace.value("x", ROWS, 12);
    linear(trace, x, range(weight, ...first));
    linear(trace, other ? trace.value("z", ROWS, 12) : x, range(weight, ...second));
    return kinds(trace, packLinears).length;
  };
  assertEquals(pack([0, 8], [8, 16]), 1);
  assertEquals(pack([8, 16], [0, 8]), 2);
  assertEquals(pack([0, 8], [9, 15]), 2);
  assertEquals(pack([0, 8], [8, 16], weight), 2);
});

Deno.test("packLinears() packs with a linear that stands before other operations, in its place", () => {
  const weight = weightOf("fused", 24, 12);
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  const first = linear(trace, x, range(weight, 0, 8));
  rmsNorm(trace, x, undefined, 1e-5);
  const other = linear(trace, x, whole(weightOf("other", 5, 12)));
  const second = linear(trace, x, range(weight, 8, 16));
  assertEquals(kinds(trace, packLinears), ["linear", "rmsNorm", "linear"]);
  assertEquals([first.view?.offset, second.view?.offset, other.view], [0, 8, undefined]);
  assertEquals(first.view?.of, second.view?.of);
  // Segments are replayed apart.
  trace.segment = "head";
  linear(trace, x, range(weight, 0, 8));
  linear(trace, x, range(weight, 8, 16));
  assertEquals(kinds(trace, packLinears), ["linear", "rmsNorm", "linear", "linear"]);
});

Deno.test("packLinears() leaves ranges that are read whole, so that numbers stay right", async () => {
  const gpu = await sharedGpu();
  const table = weightOf("table", 4, 12);
  const fused = weightOf("fused", 24, 12);
  const trace = traceFor(ROWS, { features: gpu.features });
  const x = embedding(trace, table);
  const [a, b] = [linear(trace, x, range(fused, 0, 12)), linear(trace, x, range(fused, 12, 12))];
  const sum = add(trace, a, b);
  const normed = rmsNorm(trace, b, undefined, 1e-6);
  const plan = lower(trace, fusions, { sum, normed });
  assertEquals(plan.dispatches.filter(({ operation }) => operation === "linear").length, 2);

  using weights = await randomWeights(gpu, [table, fused]);
  using runner = await createPlanRunner(gpu, [plan], {
    weights: weights.store,
    tables: { rows: Uint32Array.from([2, 0, 0, 0, 3, 0, 1, 1]) },
  });
  runner.run(plan, { rows: 2 });
  const x64 = weights.values(table).subarray(2 * 12, 4 * 12);
  const products = linearOracle(x64, weights.values(fused), { rows: 2, k: 12, n: 24 });
  const dot = (row: number, column: number) => products[row * 24 + column];
  const columns = Array.from({ length: 12 }, (_, i) => i);
  const wantSum = [0, 1].flatMap((row) => columns.map((i) => dot(row, i) + dot(row, 12 + i)));
  const wantNorm = rmsNormOracle(
    Float64Array.from([0, 1].flatMap((row) => columns.map((i) => dot(row, 12 + i)))),
    undefined,
    { rows: 2, width: 12, eps: 1e-6 },
  );
  assertLess(relativeError(await runner.read(plan, "sum", 2), wantSum), 1e-6);
  assertLess(relativeError(await runner.read(plan, "normed", 2), wantNorm), 1e-6);
});

Deno.test("fusions leave what is a result", () => {
  const trace = traceFor(THIN_ROWS);
  const x = trace.value("x", THIN_ROWS, 12);
  const normed = rmsNorm(trace, x, NORM, 1e-5);
  const product = linear(trace, normed, whole(SQUARE));
  const sum = add(trace, x, product);
  const kernels = (results: Record<string, Value>) =>
    lower(trace, fusions, results).dispatches.map(({ operation }) => operation);
  assertEquals(kernels({ sum }), ["linear"]);
  assertEquals(kernels({ sum, product }), ["linear", "add"]);
  assertEquals(kernels({ sum, normed }), ["rmsNorm", "linear"]);
  assertEquals(lower(trace, fusions, { sum, normed, product }).memory.slotOf.size, 4);
});

Deno.test("fusions without packing leave attention without its buffer, which lowering says", async () => {
  const model = await describeModel(NOVEL_LLAMA);
  assertThrows(
    () => logitPlan(model, traceFor().target, []),
    TypeError,
    "must be adjacent ranges of one weight",
  );
});
