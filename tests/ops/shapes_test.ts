import { assertEquals, assertThrows } from "@std/assert";
import { lower, whole } from "../../lib/graph/mod.ts";
import {
  add,
  alignRows,
  embedding,
  gatherLogitRows,
  glu,
  keyValueCache,
  linear,
  multiply,
  normRows,
  rmsNorm,
  type Rotary,
  sample,
  score,
  softmaxAttention,
  storeKeyValues,
} from "../../lib/ops/mod.ts";
import { range, ROWS, traceFor, weightOf } from "./trace_target.ts";

const ROTARY: Rotary = {
  name: "r",
  layout: "half",
  size: 8,
  frequencies: [1, 0.1, 0.01, 0.001],
  positions: 64,
};

Deno.test("embedding() has the step's rows and the table's width", () => {
  const trace = traceFor();
  const x = embedding(trace, weightOf("table", 50, 12));
  assertEquals([x.rows, x.width], [ROWS, 12]);
});

Deno.test("linear() has the rows of its input and the view's width", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  const y = linear(trace, x, range(weightOf("w", 30, 12), 4, 5));
  assertEquals([y.rows, y.width, y.name], [ROWS, 5, "w"]);
  assertEquals(linear(trace, x, whole(weightOf("w", 30, 12)), "query").name, "query");
});

Deno.test("linear() says how wide its input must be", () => {
  const trace = traceFor();
  assertThrows(
    () => linear(trace, trace.value("x", ROWS, 13), whole(weightOf("down", 30, 12))),
    TypeError,
    "linear down takes rows of 12 numbers, its input has 13",
  );
});

Deno.test("linear() refuses a view that is not inside of its weight", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  for (const [first, rows] of [[20, 11], [-1, 5], [0, 0], [31, 1]]) {
    assertThrows(
      () => linear(trace, x, range(weightOf("w", 30, 12), first, rows)),
      TypeError,
      `linear w has 30 rows: a view of ${rows} from ${first} on is not inside`,
    );
  }
});

Deno.test("rmsNorm() refuses a weight of another shape or type", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  assertEquals(rmsNorm(trace, x, undefined, 1e-5).width, 12);
  assertThrows(
    () => rmsNorm(trace, x, weightOf("norm", 1, 8), 1e-5),
    TypeError,
    "rmsNorm norm is [1, 8], its input rows need [1, 12]",
  );
  assertThrows(() => rmsNorm(trace, x, weightOf("norm", 12, 1), 1e-5), TypeError, "rmsNorm norm is [12, 1]");
  assertThrows(
    () => rmsNorm(trace, x, { ...weightOf("norm", 1, 12), dtype: "f16" }, 1e-5),
    TypeError,
    "rmsNorm norm is stored as f16",
  );
});

Deno.test("add(), glu() and multiply() say which shapes they got", () => {
  const trace = traceFor();
  const a = trace.value("a", ROWS, 12);
  const narrow = trace.value("b", ROWS, 8);
  const other = trace.value("c", { ...ROWS, name: "kept" }, 12);
  assertThrows(
    () => add(trace, a, narrow),
    TypeError,
    "add takes two values of one shape: [rows, 12] and [rows, 8]",
  );
  assertThrows(() => add(trace, a, other), TypeError, "[rows, 12] and [kept, 12]");
  assertThrows(
    () => glu(trace, a, narrow, "silu"),
    TypeError,
    "glu takes two values of one shape: [rows, 12] and [rows, 8]",
  );
  assertThrows(
    () => multiply(trace, a, other),
    TypeError,
    "multiply takes two values of one shape: [kept, 12] and [rows, 12]",
  );
});

Deno.test("alignRows() costs nothing for the same rows, and refuses rows of elsewhere", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  assertEquals(alignRows(trace, x, ROWS), x);
  assertEquals(gatherLogitRows(trace, x), x);
  assertEquals(trace.operations, []);
  const kept = { name: "kept", capacity: 3, thin: false };
  assertThrows(() => alignRows(trace, x, kept), TypeError, "Rows kept were not taken from rows rows");
  assertThrows(
    () => alignRows(trace, x, { ...kept, name: "fewer", from: { rows: kept, map: "fewer" } }),
    TypeError,
    "Rows kept were not taken from rows rows",
  );
});

Deno.test("keyValueCache() makes room once, and refuses other numbers of heads", () => {
  const trace = traceFor();
  const first = keyValueCache(trace, { kvHeads: 2, headSize: 8 });
  const second = keyValueCache(trace, { kvHeads: 2, headSize: 16 });
  assertEquals([first.layer, second.layer, second.headSize], [0, 1, 16]);
  assertEquals(trace.operations.map(({ definition }) => definition.kind), ["cacheAppend"]);
  assertThrows(
    () => keyValueCache(trace, { kvHeads: 4, headSize: 8 }),
    TypeError,
    "All layers need the same number of KV heads: 2 and 4",
  );
});

Deno.test("softmaxAttention() refuses heads that cannot be grouped", () => {
  const trace = traceFor();
  const cache = keyValueCache(trace, { kvHeads: 2, headSize: 8 });
  const attend = (width: number) => softmaxAttention(trace, trace.value("q", ROWS, width), cache, 1);
  assertEquals(attend(32).width, 32);
  for (const width of [24, 20]) {
    assertThrows(
      () => attend(width),
      TypeError,
      `Query width ${width} is no multiple of 2 KV heads of 8: heads must be grouped evenly`,
    );
  }
});

Deno.test("storeKeyValues() says what widths, rows and rotary size it needs", () => {
  const trace = traceFor();
  const cache = keyValueCache(trace, { kvHeads: 2, headSize: 8 });
  const value = (width: number, rows = ROWS) => trace.value("v", rows, width);
  const store = (k: number, v: number, rotary?: Rotary, rows = ROWS) =>
    storeKeyValues(trace, { q: value(32), k: value(k, rows), v: value(v) }, cache, rotary);
  assertThrows(() => store(24, 16), TypeError, "Keys and values need 2 heads of 8: widths are 24 and 16");
  assertThrows(() => store(16, 8), TypeError, "widths are 16 and 8");
  assertThrows(
    () => store(16, 16, { ...ROTARY, size: 10 }),
    TypeError,
    "Rotary size 10 is over the head size 8",
  );
  assertThrows(
    () => store(16, 16, ROTARY, { ...ROWS, name: "kept" }),
    TypeError,
    "Queries, keys and values need the same rows: they have rows, kept and rows",
  );
  assertEquals(store(16, 16, ROTARY).width, 32);
});

Deno.test("storeKeyValues() says at lowering that its inputs must come from one weight", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  const cache = keyValueCache(trace, { kvHeads: 2, headSize: 8 });
  const [q, k, v] = ["q", "k", "v"].map((name) => linear(trace, x, whole(weightOf(name, 16, 12))));
  const y = storeKeyValues(trace, { q, k, v }, cache, ROTARY);
  assertThrows(
    () => lower(trace, [], { y }),
    TypeError,
    "Queries, keys and values of a layer must be adjacent ranges of one weight",
  );
});

Deno.test("sample() and score() open segments of their own", () => {
  const trace = traceFor();
  const logits = trace.value("logits", ROWS, 50);
  score(trace, logits);
  sample(trace, logits, { edits: true, logprobs: 3, ring: 8 });
  const plan = lower(trace, [], { logits });
  assertEquals(plan.dispatches.map(({ operation, segment }) => [operation, segment]), [
    ["score", "score"],
    ["logProbabilities", "sample"],
    ["sample", "sample"],
  ]);
  const names = plan.dispatches[2].operands.map((operand) => operand.type === "resource" ? operand.name : "");
  assertEquals(names.includes("counts") && names.includes("bias"), true);
});

Deno.test("normRows() refuses groups that do not divide a row, and parameters of another shape or type", () => {
  const trace = traceFor();
  const x = trace.value("x", ROWS, 12);
  const norm = (options: Partial<Parameters<typeof normRows>[2]>) =>
    normRows(trace, x, { kind: "layer", epsilon: 1e-5, ...options });
  const weight = weightOf("gain", 1, 12);
  assertEquals(norm({ weight, bias: weightOf("shift", 1, 12) }).width, 12);
  assertEquals(norm({ groups: 3, weight: weightOf("gain", 1, 4) }).width, 12);
  assertThrows(() => norm({ groups: 5 }), RangeError, "groups to divide a row of 12: current value is 5");
  assertThrows(() => norm({ groups: 0 }), RangeError, "current value is 0");
  assertThrows(() => norm({ weight: weightOf("gain", 1, 4) }), TypeError, "normRows gain is [1, 4]");
  assertThrows(() => norm({ weight: weightOf("gain", 12, 1) }), TypeError, "normRows gain is [12, 1]");
  const narrow = weightOf("shift", 1, 4);
  assertThrows(() => norm({ groups: 3, weight, bias: narrow }), TypeError, "normRows shift is [1, 4]");
  assertThrows(() => norm({ weight: { ...weight, dtype: "f16" } }), TypeError, "gain is stored as f16");
});
