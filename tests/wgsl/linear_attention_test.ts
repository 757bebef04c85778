// Linear attention over packed sequences and several steps, recurrent and in chunks, against its quadratic definition.

import { assert } from "@std/assert";
import {
  linearAttention,
  type LinearAttentionSpec,
  linearStateWords,
} from "../../lib/ops/linear_attention.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { createLinearRun, pickRows, rowError } from "../harness/linear_run.ts";
import { linearAttentionOracle, type OracleRow } from "../oracles/linear_attention.ts";

/** Sums of products lose digits where they cancel; each row is held against its own largest value. */
const TOLERANCE = 1e-5;

interface Scene {
  readonly name: string;
  readonly heads: number;
  readonly kvHeads: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly causal?: boolean;
  readonly decay: "none" | "token" | { readonly perHead: readonly number[] };
  /** Rows by step and sequence; one with none is not in the step. Rows of sequences that are done are forgotten. */
  readonly steps: readonly {
    readonly capacity: number;
    readonly rows: readonly number[];
    readonly done?: readonly number[];
  }[];
  /** Positions from row to row. Default: 1. */
  readonly gap?: (row: number) => number;
  /** Logarithms of decays by row. */
  readonly logs?: (i: number) => number;
  /** Columns before each input in its buffer. */
  readonly margin?: number;
  readonly bindingBytes?: number;
}

const SMALL = { heads: 6, kvHeads: 3, keySize: 12, valueSize: 20 };
const SLOPES = { perHead: [-1, -0.02, 0] };
const gap = (row: number): number => row % 37 === 36 ? 100_000 : row % 5 === 0 ? 3 : 1;

const SCENES: readonly Scene[] = [
  {
    name: "1, 63, 64, 65 and 257 rows in one step of chunks",
    heads: 1,
    kvHeads: 1,
    keySize: 12,
    valueSize: 20,
    decay: "none",
    steps: [{ capacity: 512, rows: [1, 63, 64, 65, 257] }],
  },
  {
    name: "decay by head over gaps, in chunks, recurrent and in chunks again",
    ...SMALL,
    decay: SLOPES,
    gap,
    steps: [
      { capacity: 256, rows: [65, 0, 130] },
      { capacity: 32, rows: [3, 7, 1] },
      { capacity: 256, rows: [1, 70, 64] },
      { capacity: 32, rows: [1, 1, 1] },
    ],
  },
  {
    name: "states of sequences that are done stay as they are",
    ...SMALL,
    decay: SLOPES,
    gap,
    steps: [
      { capacity: 32, rows: [5, 6, 7] },
      { capacity: 32, rows: [2, 3, 1], done: [1] },
      { capacity: 256, rows: [2, 66, 65], done: [0, 1] },
      { capacity: 32, rows: [1, 1, 1] },
    ],
  },
  {
    name: "decay by token, from almost none to all, of views that are not aligned",
    ...SMALL,
    decay: "token",
    logs: (i) => i % 23 === 0 ? -Infinity : i % 29 === 0 ? -1e30 : i % 3 === 0 ? -7 : -0.01 * (i % 11),
    margin: 3,
    steps: [
      { capacity: 32, rows: [5, 20, 0] },
      { capacity: 256, rows: [65, 0, 130] },
      { capacity: 256, rows: [1, 70, 64] },
    ],
  },
  {
    name: "large heads, a head at a time where bindings are small",
    heads: 3,
    kvHeads: 3,
    keySize: 68,
    valueSize: 132,
    decay: { perHead: [-0.01, -0.3, 0] },
    // Four tiles of 68 x 132 numbers, not twice that.
    bindingBytes: 210_000,
    steps: [{ capacity: 128, rows: [70, 3] }, { capacity: 32, rows: [1, 2] }],
  },
  {
    name: "the largest heads",
    heads: 1,
    kvHeads: 1,
    keySize: 256,
    valueSize: 256,
    decay: "none",
    steps: [{ capacity: 64, rows: [33] }, { capacity: 32, rows: [1] }],
  },
  {
    name: "all rows of a sequence see each other",
    heads: 6,
    kvHeads: 3,
    keySize: 12,
    valueSize: 20,
    causal: false,
    decay: "none",
    margin: 4,
    steps: [{ capacity: 256, rows: [65, 1, 130] }],
  },
];

async function check(scene: Scene): Promise<void> {
  const { name, heads, kvHeads, keySize, valueSize, causal = true, decay, steps } = scene;
  const { gap = () => 1, logs, margin } = scene;
  const gpu = await sharedGpu();
  const sequences = steps[0].rows.length;
  const spec: LinearAttentionSpec = { heads, kvHeads, keySize, valueSize, causal, decay };
  const widths = { q: heads * keySize, k: kvHeads * keySize, v: kvHeads * valueSize, logDecay: kvHeads };
  const words = linearStateWords(spec);
  using run = await createLinearRun(gpu, {
    inputs: mapWidths(widths, (width) => ({ width, ...(margin ? { margin: [margin, 4] as const } : {}) })),
    trace: (trace, { logDecay, ...qkv }) =>
      linearAttention(
        trace,
        { ...qkv, ...(decay === "token" ? { logDecay } : {}) },
        spec,
        causal ? { name: "state.0", layer: 0, words } : undefined,
      ),
    states: [words],
    sequences,
    capacities: [...new Set(steps.map(({ capacity }) => capacity))],
    ...(scene.bindingBytes ? { target: { bindingBytes: scene.bindingBytes } } : {}),
  });
  const counts = steps.map(({ rows }) => rows.reduce((a, b) => a + b));
  const total = counts.reduce((a, b) => a + b);
  const data = mapWidths(widths, (width, seed) => randomArray(total * width, seed + 1));
  data.logDecay.forEach((_, i) => data.logDecay[i] = logs?.(i) ?? 0);

  const width = heads * valueSize;
  const next = new Array<number>(sequences).fill(0);
  /** Rows that the states know of, as rows of the data. */
  const known: (OracleRow & { readonly at: number })[] = [];
  let first = 0;
  for (const [i, { capacity, rows: lengths, done = [] }] of steps.entries()) {
    const before = [...next];
    const rows = lengths.flatMap((count, sequence) =>
      Array.from({ length: count }, (_, row) => ({ sequence, position: next[sequence] += gap(row) }))
    ).map((row, at) => ({ ...row, at: first + at }));
    const seen = [...known, ...rows];
    const pick = (all: typeof seen) =>
      mapWidths(widths, (width, _, key) => pickRows(data[key], width, all.map(({ at }) => at)));
    const { logDecay, ...qkv } = pick(seen);
    const want = linearAttentionOracle({
      ...spec,
      rows: seen,
      ...qkv,
      ...(typeof decay === "object" ? { slopes: decay.perHead.map(Math.fround) } : {}),
      ...(decay === "token" ? { logDecay } : {}),
    }).subarray(known.length * width);
    const got = await run.step({
      capacity,
      rows: rows.map((row) => ({ token: 0, ...row })),
      data: pick(rows),
      done,
    });
    const error = rowError(got, want, width);
    assert(error < TOLERANCE, `${name}, step ${i}: error ${error.toExponential(2)}`);
    known.push(...rows.filter(({ sequence }) => !done.includes(sequence)));
    for (const sequence of done) next[sequence] = before[sequence];
    first += counts[i];
  }
}

function mapWidths<N extends string, T>(
  widths: Readonly<Record<N, number>>,
  piece: (width: number, index: number, name: N) => T,
): Record<N, T> {
  const names = Object.keys(widths) as N[];
  return Object.fromEntries(names.map((name, i) => [name, piece(widths[name], i, name)])) as Record<N, T>;
}

for (const scene of SCENES) {
  Deno.test({
    name: `linearAttention() agrees with its definition: ${scene.name}`,
    // The device is shared by all tests and outlives them.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: () => check(scene),
  });
}
