import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  createTrace,
  denseOperand,
  kernelCounts,
  lower,
  type OpDefinition,
  placementOf,
  printPlan,
  resource,
  type Rewrite,
  type Target,
  type Trace,
  type Value,
  valueOperand,
  type Weight,
  weightOperand,
} from "../../lib/graph/mod.ts";
import { fakeKernel, rowsOf } from "./fake_dispatch.ts";

const ROWS = rowsOf("rows", 4);

const TARGET: Target = {
  phase: "prefill",
  rows: ROWS,
  logits: ROWS,
  sequences: 1,
  slots: {},
  ragged: false,
  lastRows: false,
  reuseDelay: 0,
  longest: 16,
  cacheType: "f32",
  features: { f16: false, subgroups: false, subgroupMinSize: 4, subgroupMaxSize: 128, timestamps: false },
  bindingBytes: 2 ** 20,
  workgroupBytes: 16384,
};

const WEIGHT: Weight = { name: "table", rows: 10, columns: 3, dtype: "f16" };

/** An op that becomes one kernel call over its inputs and outputs. */
function op(kind: string, bindings?: number): OpDefinition<Record<never, never>> {
  return {
    kind,
    lower({ inputs, outputs }, emit): void {
      const operands = [...inputs, ...outputs].map(valueOperand);
      emit.dispatch(fakeKernel(`${kind} kernel`, bindings ?? operands.length), operands, () => ({}));
    },
  };
}

/** Appends an op with one output. */
function apply(
  trace: Trace,
  definition: OpDefinition<Record<never, never>>,
  inputs: Value[],
  width: number,
): Value {
  const y = trace.value(definition.kind, ROWS, width);
  trace.append(definition, inputs, [y], {});
  return y;
}

Deno.test("createTrace() numbers values, and caches by kind", () => {
  const trace = createTrace(TARGET);
  assertEquals([1, 2, 3].map((width) => trace.value("v", ROWS, width).id), [0, 1, 2]);
  assertEquals(["kv", "state", "kv", "state", "kv"].map((kind) => trace.cache(kind, { size: 1 }).layer), [
    0,
    0,
    1,
    1,
    2,
  ]);
  assertEquals(trace.caches.length, 5);
});

Deno.test("lower() emits kernel calls in order, with the kind and segment of their operation", () => {
  const trace = createTrace(TARGET);
  const a = apply(trace, op("first"), [], 8);
  trace.segment = "head";
  const b = apply(trace, op("second"), [a], 2);
  const plan = lower(trace, [], { result: b });
  assertEquals(plan.dispatches.map(({ kernel, operation, segment }) => [kernel.name, operation, segment]), [
    ["first kernel", "first", "body"],
    ["second kernel", "second", "head"],
  ]);
  assertEquals(plan.results, { result: b });
  assertEquals(plan.memory.slots, [4 * 8 * 4, 4 * 2 * 4]);
});

Deno.test("lower() applies rewrites one after the other", () => {
  const trace = createTrace(TARGET);
  for (const kind of ["a", "b", "c"]) apply(trace, op(kind), [], 1);
  const kinds = (rewrites: readonly Rewrite[]) =>
    lower(trace, rewrites, {}).dispatches.map(({ operation }) => operation);
  assertEquals(kinds([(list) => list.slice(1)]), ["b", "c"]);
  assertEquals(kinds([(list) => list.slice(1), (list) => list.slice(1)]), ["c"]);
  assertEquals(kinds([]), ["a", "b", "c"]);
});

Deno.test("lower() shows rewrites a reader of the results", () => {
  const trace = createTrace(TARGET);
  const [a, b] = ["a", "b"].map((kind) => apply(trace, op(kind), [], 1));
  const seen: unknown[] = [];
  lower(trace, [(operations) => {
    seen.push(operations.map(({ definition, inputs }) => [definition.kind, inputs]));
    return operations;
  }], { first: a, second: b });
  assertEquals(seen, [[["a", []], ["b", []], ["result", [a, b]]]]);
});

Deno.test("lower() refuses an op that binds another number of buffers than its kernel has", () => {
  const trace = createTrace(TARGET);
  apply(trace, op("sum", 3), [], 1);
  assertThrows(() => lower(trace, [], {}), TypeError, "Kernel sum kernel has 3 bindings, sum binds 1");
});

Deno.test("lower() refuses a value over the binding limit, with its sizes", () => {
  const trace = createTrace({ ...TARGET, bindingBytes: 1024 });
  apply(trace, op("fits"), [], 64);
  lower(trace, [], {});
  apply(trace, op("scores"), [], 65);
  assertThrows(
    () => lower(trace, [], {}),
    RangeError,
    "scores takes 1.02 KiB for 4 rows of 65 numbers, over this device's binding limit of 1.00 KiB: " +
      "use fewer sequences at once or a shorter context",
  );
});

Deno.test("kernelCounts() counts by name, most frequent first", () => {
  const trace = createTrace(TARGET);
  for (const kind of ["b", "a", "c", "a", "c"]) apply(trace, op(kind), [], 1);
  assertEquals(kernelCounts(lower(trace, [], {})), [
    { name: "a kernel", count: 2 },
    { name: "c kernel", count: 2 },
    { name: "b kernel", count: 1 },
  ]);
});

Deno.test("printPlan() shows calls, operands with shapes, and buffers", () => {
  const trace = createTrace(TARGET);
  const x = apply(
    trace,
    {
      kind: "embedding",
      lower({ outputs }, emit): void {
        const operands = [
          resource("rows"),
          weightOperand(WEIGHT, 0),
          weightOperand(WEIGHT, 2),
          valueOperand(outputs[0]),
        ];
        emit.dispatch(fakeKernel("embedding kernel", 4), operands, () => ({}));
      },
    },
    [],
    8,
  );
  const view = trace.value("view", ROWS, 2);
  view.view = { of: x, offset: 3 };
  trace.segment = "head";
  const y = apply(trace, op("linear"), [view], 2);
  assertEquals(
    printPlan(lower(trace, [], { y })),
    [
      "prefill plan for up to 4 rows: 2 kernel calls",
      "   0 body   embedding kernel(rows, table [10, 3] f16, table.2 [10, 3] f16, embedding [rows, 8] #0)",
      "   1 head   linear kernel(embedding [rows, 8] #0, linear [rows, 2] #1)",
      "buffers, 160 bytes:",
      "  #0: 128 bytes",
      "  #1: 32 bytes",
    ].join("\n"),
  );
});

Deno.test("placementOf() follows views to the value that has the buffer", () => {
  const trace = createTrace(TARGET);
  const root = trace.value("root", ROWS, 20);
  const wide = { ...trace.value("wide", ROWS, 12), view: { of: root, offset: 4 } };
  const narrow = { ...trace.value("narrow", ROWS, 3), view: { of: wide, offset: 5 } };
  assertEquals(placementOf(root), { root, firstRow: 0, offset: 0, stride: 20 });
  assertEquals(placementOf(narrow), { root, firstRow: 0, offset: 9, stride: 20 });
});

Deno.test("denseOperand() refuses a range of columns", () => {
  const trace = createTrace(TARGET);
  const root = trace.value("fused", ROWS, 20);
  const part = { ...trace.value("query", ROWS, 12), view: { of: root, offset: 0 } };
  const all = { ...trace.value("all", ROWS, 20), view: { of: root, offset: 0 } };
  assertEquals(denseOperand(root), { type: "value", value: root });
  assertEquals(denseOperand(all), { type: "value", value: all });
  const { message } = assertThrows(() => denseOperand(part), TypeError) as Error;
  assertStringIncludes(message, "query is 12 of the 20 columns of fused");
});
