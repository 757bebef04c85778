// Runs an op that keeps a recurrent state over steps that a test lays out, through traced plans as an engine does.

import { packRows, packSpans, packTiles, type StepRow, tileCount } from "../../lib/generate/tables.ts";
import type { Gpu } from "../../lib/gpu/mod.ts";
import {
  createTrace,
  createWeightStore,
  lower,
  type OpDefinition,
  resource,
  type Rows,
  type Target,
  type Trace,
  type Value,
  valueOperand,
} from "../../lib/graph/mod.ts";
import { defineKernel, read, write } from "../../wgsl/kernel.ts";
import { STATE_WORDS } from "../../wgsl/tables.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";

/** A token of a sequence: everything the layer projects of it stands in `columns`. */
export interface TokenSetup {
  readonly position: number;
  readonly columns: Float32Array;
  readonly token?: number;
}

/** Some tokens of a sequence, fed in one step. */
export interface Feed {
  readonly sequence: number;
  readonly tokens: readonly TokenSetup[];
}

/** A step. Sequences in `done` have been stopped before it. */
export interface StepSetup {
  readonly phase: "prefill" | "decode";
  readonly feeds: readonly Feed[];
  readonly done?: readonly number[];
}

/** What is run. */
export interface OpSetup {
  readonly sequences: number;
  /** Columns of a token. */
  readonly width: number;
  /** Numbers of its state, if it has one: resource `state.0`. */
  readonly stateWords?: number;
  /** Traces the op over the wide value of all columns. */
  readonly build: (trace: Trace, columns: Value) => Value;
}

const LOAD = defineKernel({
  name: "load",
  parameters: { count: "u32" },
  bindings: [read("source", "array<f32>"), write("out", "array<f32>")],
  grid: ({ count }) => [Math.ceil(count / 64), 1, 1],
  body: `@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < params.count) { out[id.x] = source[id.x]; }
}`,
});

const loadOp: OpDefinition<Record<never, never>> = {
  kind: "load",
  lower({ outputs: [y] }, emit): void {
    emit.dispatch(LOAD, [resource("columns"), valueOperand(y)], (counts) => ({
      count: counts[y.rows.name] * y.width,
    }));
  },
};

/** Columns [offset, offset + width) of a value. */
export function columnsOf(trace: Trace, of: Value, offset: number, width: number): Value {
  const view = trace.value("columns", of.rows, width);
  view.view = { of, offset };
  return view;
}

/** A trace target for some rows. */
export function stepTarget(
  phase: "prefill" | "decode",
  rows: Rows,
  sequences: number,
  features: Target["features"],
): Target {
  return {
    phase,
    rows,
    logits: rows,
    sequences,
    slots: {},
    ragged: false,
    lastRows: false,
    reuseDelay: 0,
    longest: 2 ** 20,
    cacheType: "f32",
    features,
    bindingBytes: 2 ** 27,
    workgroupBytes: 16384,
  };
}

/** Runs steps one after the other over states that begin empty; the result's rows by step. */
export async function runSteps(
  gpu: Gpu,
  setup: OpSetup,
  steps: readonly StepSetup[],
): Promise<Float32Array[]> {
  const { sequences, width, stateWords, build } = setup;
  const capacity = Math.max(
    ...steps.map(({ feeds }) => feeds.reduce((sum, { tokens }) => sum + tokens.length, 0)),
  );
  const plans = new Map(
    (["prefill", "decode"] as const)
      .filter((phase) => steps.some((step) => step.phase === phase))
      .map((phase) => {
        const rows = { name: "rows", capacity, thin: false };
        const trace = createTrace(stepTarget(phase, rows, sequences, gpu.features));
        const columns = trace.value("columns", rows, width);
        trace.append(loadOp, [], [columns], {});
        return [phase, lower(trace, [], { out: build(trace, columns) })];
      }),
  );
  using runner = await createPlanRunner(gpu, [...plans.values()], {
    weights: createWeightStore(gpu),
    tables: {
      columns: new Float32Array(capacity * width),
      rows: new Uint32Array(capacity * 4),
      spans: new Uint32Array(sequences * 2),
      tiles: new Uint32Array((capacity + sequences) * 4),
      states: new Uint32Array(sequences * STATE_WORDS),
      ...(stateWords ? { "state.0": new Float32Array(sequences * stateWords) } : {}),
    },
  });
  const outputs: Float32Array[] = [];
  for (const { phase, feeds, done = [] } of steps) {
    const plan = plans.get(phase)!;
    const rows: StepRow[] = feeds.flatMap(({ sequence, tokens }) =>
      tokens.map(({ position, token = 0 }, index) => ({ token, sequence, position, index }))
    );
    const tiles = packTiles(rows, 64);
    const states = new Uint32Array(sequences * STATE_WORDS);
    for (const sequence of done) states[sequence * STATE_WORDS] = 1;
    runner.write(
      "columns",
      Float32Array.from(feeds.flatMap(({ tokens }) => tokens.flatMap(({ columns }) => [...columns]))),
    );
    runner.write("rows", packRows(rows));
    // A decode step has no spans and tiles.
    if (phase === "prefill") {
      runner.write("spans", packSpans(rows, sequences));
      runner.write("tiles", tiles);
    } else {
      runner.write("spans", new Uint32Array(sequences * 2).fill(0xfffffff0));
    }
    runner.write("states", states);
    runner.run(plan, { rows: rows.length, tiles: phase === "prefill" ? tileCount(tiles) : 0, longest: 0 });
    outputs.push(await runner.read(plan, "out", rows.length));
  }
  return outputs;
}

/** The rows of all steps by sequence, in the order they were fed. */
export function bySequence(
  steps: readonly StepSetup[],
  outputs: readonly Float32Array[],
  sequences: number,
): Float32Array[] {
  const rows: number[][] = Array.from({ length: sequences }, () => []);
  steps.forEach(({ feeds }, i) => {
    const count = feeds.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const width = outputs[i].length / count;
    let row = 0;
    for (const { sequence, tokens } of feeds) {
      rows[sequence].push(...outputs[i].subarray(row * width, (row + tokens.length) * width));
      row += tokens.length;
    }
  });
  return rows.map((numbers) => Float32Array.from(numbers));
}

/** One prefill step a cut: all sequences go from cut to cut, those that have ended are left out. */
export function prefillSteps(
  sequences: readonly (readonly TokenSetup[])[],
  cuts: readonly number[] = [],
): StepSetup[] {
  return [...cuts, Infinity].map((end, i): StepSetup => ({
    phase: "prefill",
    feeds: sequences.map((tokens, sequence) => ({
      sequence,
      tokens: tokens.slice(i === 0 ? 0 : cuts[i - 1], end),
    })).filter(({ tokens }) => tokens.length > 0),
  })).filter(({ feeds }) => feeds.length > 0);
}

/** A prefill of the first tokens of all sequences, if `from` is over 0, then decode steps of one token each. */
export function decodeSteps(sequences: readonly (readonly TokenSetup[])[], from: number): StepSetup[] {
  const first = from === 0 ? [] : prefillSteps(sequences.map((tokens) => tokens.slice(0, from)));
  const longest = Math.max(...sequences.map(({ length }) => length));
  return [
    ...first,
    ...Array.from({ length: longest - from }, (_, i): StepSetup => ({
      phase: "decode",
      feeds: sequences.flatMap((tokens, sequence) => {
        const one = tokens.slice(from + i, from + i + 1);
        return one.length > 0 ? [{ sequence, tokens: one }] : [];
      }),
    })),
  ];
}
