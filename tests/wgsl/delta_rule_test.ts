// The delta rule, plain and gated: chunked and row by row, against the recurrence.

import { assertThrows } from "@std/assert";
import type { Value } from "../../lib/graph/mod.ts";
import { deltaRule, deltaStateWords } from "../../lib/ops/delta_rule.ts";
import type { StateHeads } from "../../lib/ops/state_heads.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { deltaStep } from "../oracles/delta_rule.ts";
import { traceFor } from "../ops/trace_target.ts";
import { checkScene, type SceneStep, type StateOp } from "./linear_state_scene.ts";

/** Makes the op; gates are made from a number in [0, 1) and a running index. */
function deltaOp(
  beta: (random: number, index: number) => number,
  logDecay?: (random: number, index: number) => number,
  unitKeys = true,
): StateOp {
  return {
    unitKeys,
    gates: {
      beta: { width: 1, value: beta },
      ...(logDecay ? { logDecay: { width: 1, value: logDecay } } : {}),
    },
    apply: (trace, { q, k, v, beta, logDecay }, heads, state) =>
      deltaRule(trace, { q, k, v, beta, ...(logDecay ? { logDecay } : {}) }, heads, state),
    step: (state, { k, v, gates }) =>
      deltaStep(state, { k, v, beta: gates.beta[0], logDecay: gates.logDecay?.[0] ?? 0 }),
  };
}

/** One packed step with all lengths about the sizes of chunks and tiles, then rows one by one, then chunks again. */
const STEPS: readonly SceneStep[] = [
  { kind: "chunks", rows: [1, 15, 16, 17, 63, 64, 65, 257] },
  { kind: "decode", rows: [1, 0, 1, 1, 1, 1, 1, 1], done: [2] },
  { kind: "few", rows: [0, 3, 1, 17, 0, 0, 5, 2], done: [3] },
  { kind: "chunks", rows: [33, 2, 0, 70, 31, 1, 32, 9], done: [4] },
];

/** Fewer rows, for sizes whose kernels are slow here. */
const SHORT: readonly SceneStep[] = [
  { kind: "chunks", rows: [35, 66] },
  { kind: "decode", rows: [1, 1] },
];

const CASES: readonly { name: string; op: StateOp; heads: StateHeads; steps: readonly SceneStep[] }[] = [
  {
    name: "without decay, grouped heads",
    op: deltaOp((random) => random),
    heads: { heads: 6, kvHeads: 3, keySize: 20, valueSize: 4 },
    steps: STEPS,
  },
  {
    name: "with decay, odd heads",
    op: deltaOp((random) => random, (random) => -0.3 * random),
    heads: { heads: 3, kvHeads: 3, keySize: 32, valueSize: 36 },
    steps: STEPS,
  },
  {
    name: "with extreme decays and strengths",
    op: deltaOp(
      (random, i) => [0, 1, 2, random, 2 * random][i % 5],
      (random, i) => [0, -random, -1e30, -1e-3, 0, -40, -1e-2 * random][i % 7],
    ),
    heads: { heads: 1, kvHeads: 1, keySize: 32, valueSize: 36 },
    steps: STEPS,
  },
  {
    name: "with keys of any length and large heads",
    op: deltaOp((random) => 0.02 * random, (random) => -0.1 * random, false),
    heads: { heads: 2, kvHeads: 1, keySize: 132, valueSize: 140 },
    steps: SHORT,
  },
];

for (const { name, op, heads, steps } of CASES) {
  Deno.test({
    name: `deltaRule() ${name} is the recurrence over steps`,
    // The device is shared by all tests and outlives them.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => await checkScene(await sharedGpu(), op, heads, steps),
  });
}

Deno.test("deltaRule() refuses what does not fit", () => {
  const trace = traceFor();
  const heads = { heads: 4, kvHeads: 2, keySize: 8, valueSize: 12 };
  const value = (width: number): Value => trace.value("x", trace.target.rows, width);
  const inputs = { q: value(32), k: value(16), v: value(24), beta: value(2) };
  const state = { name: "state.0", layer: 0, words: deltaStateWords(heads) };
  deltaRule(trace, inputs, heads, state);
  assertThrows(
    () => deltaRule(trace, { ...inputs, beta: value(4) }, heads, state),
    TypeError,
    "takes beta as [rows, 2]",
  );
  assertThrows(
    () => deltaRule(trace, inputs, { ...heads, heads: 3 }, state),
    TypeError,
    "3 heads for 2 KV heads",
  );
  assertThrows(
    () => deltaRule(trace, inputs, heads, { ...state, words: 4 }),
    TypeError,
    "keeps 192 numbers a sequence",
  );
  assertThrows(
    () => deltaStateWords({ ...heads, keySize: 260 }),
    RangeError,
    "keySize must be a multiple of 4",
  );
});
