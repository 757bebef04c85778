// Denominators of linear attention over packed sequences and several steps, and the division by them.

import { assert, assertThrows } from "@std/assert";
import { denominatorStateWords, divideHeads, linearDenominator } from "../../lib/ops/linear_denominator.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { createLinearRun, pickRows, rowError } from "../harness/linear_run.ts";
import { linearDenominatorOracle, type OracleRow } from "../oracles/linear_attention.ts";
import { traceFor } from "../ops/trace_target.ts";

const TOLERANCE = 1e-5;
const HEADS = { heads: 6, kvHeads: 3 };
/** Value columns of a head, for the division. */
const SIZE = 5;

interface Scene {
  readonly name: string;
  readonly keySize: number;
  readonly causal: boolean;
  readonly margin?: number;
  readonly guard: { readonly epsilon?: number; readonly clamp?: number };
  readonly steps: readonly {
    readonly capacity: number;
    readonly rows: readonly number[];
    readonly done?: number;
  }[];
}

const SCENES: readonly Scene[] = [
  {
    name: "chunks, recurrent and chunks again",
    keySize: 20,
    causal: true,
    guard: { epsilon: 1e-10 },
    steps: [
      { capacity: 256, rows: [65, 1, 130] },
      { capacity: 32, rows: [3, 0, 2], done: 2 },
      { capacity: 256, rows: [63, 64, 2], done: 0 },
      { capacity: 32, rows: [1, 1, 1] },
    ],
  },
  {
    name: "views that are not aligned, clamped",
    keySize: 16,
    causal: true,
    margin: 3,
    guard: { clamp: 30 },
    steps: [{ capacity: 32, rows: [7, 5] }, { capacity: 256, rows: [67, 64] }],
  },
  {
    name: "all rows of a sequence",
    keySize: 20,
    causal: false,
    guard: { epsilon: 0.5 },
    steps: [{ capacity: 256, rows: [65, 1, 130] }],
  },
];

async function check(scene: Scene, withoutSubgroups: boolean): Promise<void> {
  const { name, keySize, causal, margin, guard, steps } = scene;
  const gpu = await sharedGpu({ withoutSubgroups });
  const { heads, kvHeads } = HEADS;
  const sequences = steps[0].rows.length;
  const spec = { ...HEADS, keySize, causal };
  const words = denominatorStateWords(spec);
  const given = (width: number) => ({ width, ...(margin ? { margin: [margin, 2] as const } : {}) });
  using run = await createLinearRun(gpu, {
    inputs: { q: given(heads * keySize), k: given(kvHeads * keySize), x: given(heads * SIZE) },
    trace: (trace, { q, k, x }) => {
      const state = causal ? { name: "state.0", layer: 0, words } : undefined;
      return divideHeads(trace, x, linearDenominator(trace, { q, k }, spec, state), { heads, ...guard });
    },
    states: [words],
    sequences,
    capacities: [...new Set(steps.map(({ capacity }) => capacity))],
  });
  /** Positive features, as a denominator has them. */
  const positive = (length: number, seed: number) => randomArray(length, seed).map((value) => 1.1 + value);
  const known: { rows: OracleRow[]; q: number[]; k: number[] } = { rows: [], q: [], k: [] };
  for (const [i, { capacity, rows: lengths, done }] of steps.entries()) {
    const rows = lengths.flatMap((count, sequence) =>
      Array.from({ length: count }, (_, position) => ({ token: 0, sequence, position }))
    );
    const q = positive(rows.length * heads * keySize, 3 * i + 1);
    const k = positive(rows.length * kvHeads * keySize, 3 * i + 2);
    const x = randomArray(rows.length * heads * SIZE, 3 * i + 3);
    const denominators = linearDenominatorOracle({
      ...spec,
      rows: [...known.rows, ...rows],
      q: [...known.q, ...q],
      k: [...known.k, ...k],
    }).subarray(known.rows.length * heads);
    const want = Float64Array.from(
      x,
      (value, j) =>
        value / Math.max(denominators[Math.floor(j / SIZE)] + (guard.epsilon ?? 0), guard.clamp ?? -Infinity),
    );
    const got = await run.step({ capacity, rows, data: { q, k, x }, done: done === undefined ? [] : [done] });
    const error = rowError(got, want, heads * SIZE);
    assert(error < TOLERANCE, `${name}, step ${i}: error ${error.toExponential(2)}`);
    const kept = [...rows.keys()].filter((row) => rows[row].sequence !== done);
    known.rows.push(...kept.map((row) => rows[row]));
    known.q.push(...pickRows(q, heads * keySize, kept));
    known.k.push(...pickRows(k, kvHeads * keySize, kept));
  }
}

for (const withoutSubgroups of [false, true]) {
  for (const scene of SCENES.slice(0, withoutSubgroups ? 1 : undefined)) {
    Deno.test({
      name: `linearDenominator() agrees with its definition: ${scene.name}${
        withoutSubgroups ? ", without subgroups" : ""
      }`,
      sanitizeOps: false,
      sanitizeResources: false,
      fn: () => check(scene, withoutSubgroups),
    });
  }
}

Deno.test("linearDenominator() refuses what does not fit, in words", () => {
  const trace = traceFor();
  const { rows } = trace.target;
  const q = trace.value("q", rows, 24);
  const k = trace.value("k", rows, 12);
  const spec = { heads: 6, kvHeads: 3, keySize: 4, causal: true };
  assertThrows(
    () => linearDenominator(trace, { q, k }, spec),
    TypeError,
    "state of 12 numbers: none is given",
  );
  assertThrows(
    () => linearDenominator(trace, { q, k }, { ...spec, keySize: 6 }),
    RangeError,
    "multiple of 4",
  );
  assertThrows(() => linearDenominator(trace, { q, k: q }, spec), TypeError, "keys as 3 heads of 4 numbers");
  assertThrows(
    () => linearDenominator(trace, { q, k }, { ...spec, kvHeads: 4 }),
    TypeError,
    "heads to be a multiple of kvHeads: 6 and 4",
  );
  assertThrows(() => divideHeads(trace, q, k, { heads: 6 }), TypeError, "denominators as 6 heads of 1");
});
