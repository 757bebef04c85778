// Gated linear attention: chunked and row by row, against the recurrence.

import { assertThrows } from "@std/assert";
import type { Value } from "../../lib/graph/mod.ts";
import { gatedLinearAttention, glaStateWords } from "../../lib/ops/gated_linear_attention.ts";
import type { StateHeads } from "../../lib/ops/state_heads.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { gatedStep } from "../oracles/gated_linear_attention.ts";
import { traceFor } from "../ops/trace_target.ts";
import { checkScene, type SceneStep, type StateOp } from "./linear_state_scene.ts";

/** Makes the op; gates are made from a number in [0, 1) and a running index. */
function glaOp(keySize: number, logDecay: (random: number, index: number) => number): StateOp {
  return {
    unitKeys: false,
    gates: { logDecay: { width: keySize, value: logDecay } },
    apply: (trace, { q, k, v, logDecay }, heads, state) =>
      gatedLinearAttention(trace, { q, k, v, logDecay }, heads, state),
    step: (state, { k, v, gates: { logDecay } }) => gatedStep(state, { k, v, logDecay }),
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

const CASES: readonly {
  name: string;
  logDecay: (random: number, index: number) => number;
  heads: StateHeads;
  steps: readonly SceneStep[];
}[] = [
  {
    name: "with mild decays, grouped heads",
    logDecay: (random) => -0.1 * random,
    heads: { heads: 6, kvHeads: 3, keySize: 4, valueSize: 36 },
    steps: STEPS,
  },
  {
    name: "with strong decays, odd heads",
    logDecay: (random) => -6 * random,
    heads: { heads: 3, kvHeads: 3, keySize: 20, valueSize: 32 },
    steps: STEPS,
  },
  {
    name: "with extreme decays",
    logDecay: (random, i) => [0, -random, -1e30, -1e-3, 0, -40, -1e-2 * random][i % 7],
    heads: { heads: 1, kvHeads: 1, keySize: 20, valueSize: 32 },
    steps: STEPS,
  },
  {
    name: "with large heads",
    logDecay: (random) => -0.3 * random,
    heads: { heads: 2, kvHeads: 1, keySize: 132, valueSize: 140 },
    steps: SHORT,
  },
];

for (const { name, logDecay, heads, steps } of CASES) {
  Deno.test({
    name: `gatedLinearAttention() ${name} is the recurrence over steps`,
    // The device is shared by all tests and outlives them.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => await checkScene(await sharedGpu(), glaOp(heads.keySize, logDecay), heads, steps),
  });
}

Deno.test("gatedLinearAttention() refuses what does not fit", () => {
  const trace = traceFor();
  const heads = { heads: 4, kvHeads: 2, keySize: 8, valueSize: 12 };
  const value = (width: number): Value => trace.value("x", trace.target.rows, width);
  const inputs = { q: value(32), k: value(16), v: value(24), logDecay: value(16) };
  const state = { name: "state.0", layer: 0, words: glaStateWords(heads) };
  gatedLinearAttention(trace, inputs, heads, state);
  assertThrows(
    () => gatedLinearAttention(trace, { ...inputs, logDecay: value(2) }, heads, state),
    TypeError,
    "takes logDecay as [rows, 16]",
  );
  assertThrows(
    () => glaStateWords({ ...heads, valueSize: 6 }),
    RangeError,
    "valueSize must be a multiple of 4",
  );
});
