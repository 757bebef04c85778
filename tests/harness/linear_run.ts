// Runs ops of linear attention over steps: plans of one op each, whose inputs a test writes, and states between them.

import type { Gpu } from "../../lib/gpu/mod.ts";
import {
  createWeightStore,
  lower,
  type OpDefinition,
  resource,
  type Rows,
  type Target,
  type Trace,
  type Value,
  valueOperand,
  type WeightStore,
} from "../../lib/graph/mod.ts";
import { packRows, packSpans, packTiles, type StepRow } from "../../lib/generate/tables.ts";
import { add } from "../../wgsl/add.ts";
import { STATE_WORDS } from "../../wgsl/tables.ts";
import { traceFor } from "../ops/trace_target.ts";
import { createPlanRunner, type PlanRunner, type Table } from "./plan_runner.ts";

/** A matrix that the test gives: a name, and the columns of the value that it stands in (default: exactly its own). */
export interface GivenInput {
  readonly width: number;
  /** Columns beside it in its buffer, before and after: then it is a view. */
  readonly margin?: readonly [number, number];
}

/** What is run. */
export interface LinearRunSpec<N extends string> {
  /** Inputs by name. */
  readonly inputs: Readonly<Record<N, GivenInput>>;
  /** Traces what is tested. */
  readonly trace: (trace: Trace, inputs: Readonly<Record<N, Value>>) => Value;
  /** Numbers of a sequence in `state.0`, `state.1`, ... */
  readonly states?: readonly number[];
  readonly sequences: number;
  /** Row capacities, one plan each: up to 32 rows is recurrent. */
  readonly capacities: readonly number[];
  /** Changes of the target. */
  readonly target?: Partial<Target>;
  /** Weights that are named. Default: none. */
  readonly weights?: WeightStore;
}

/** A step of a run. */
export interface LinearStep<N extends string> {
  readonly capacity: number;
  readonly rows: readonly Omit<StepRow, "index">[];
  /** Content of the inputs, row-major. */
  readonly data: Readonly<Record<N, Float32Array>>;
  /** Sequences that are done. */
  readonly done?: readonly number[];
}

/** Plans over inputs that a test writes. */
export interface LinearRun<N extends string> extends Disposable {
  /** Runs a step and returns what was traced. */
  step(step: LinearStep<N>): Promise<Float32Array>;
}

/** Makes a value of what the host wrote to a table: zero is added to it. */
const givenOp: OpDefinition<{ readonly table: string }> = {
  kind: "given",
  lower({ outputs: [y], attributes: { table } }, emit): void {
    emit.dispatch(
      add(),
      [resource(table), resource("zeros"), valueOperand(y)],
      (counts) => ({ count: counts[y.rows.name] * y.width }),
    );
  },
};

/** Makes the plans and the buffers. */
export async function createLinearRun<N extends string>(
  gpu: Gpu,
  spec: LinearRunSpec<N>,
): Promise<LinearRun<N>> {
  const { sequences, capacities } = spec;
  const names = Object.keys(spec.inputs) as N[];
  const widthOf = (name: N) => {
    const { width, margin: [before, after] = [0, 0] } = spec.inputs[name];
    return before + width + after;
  };
  const most = Math.max(...capacities);
  const plans = capacities.map((capacity) => {
    const rows: Rows = { name: "rows", capacity, thin: false };
    const { features } = gpu;
    const trace = traceFor(rows, { sequences, features, ...spec.target });
    const inputs = Object.fromEntries(names.map((name) => {
      const { width, margin } = spec.inputs[name];
      const whole = trace.value(name, rows, widthOf(name));
      trace.append(givenOp, [], [whole], { table: `given.${name}` });
      if (!margin) return [name, whole];
      const part = trace.value(name, rows, width);
      part.view = { of: whole, offset: margin[0] };
      return [name, part];
    })) as Record<N, Value>;
    return lower(trace, [], { out: spec.trace(trace, inputs) });
  });
  const tables: Record<string, Table> = {
    rows: new Uint32Array(most * 4),
    spans: new Uint32Array(sequences * 2),
    tiles: new Uint32Array((Math.ceil(most / 64) + sequences) * 4),
    states: new Uint32Array(sequences * STATE_WORDS),
    zeros: new Float32Array(most * Math.max(...names.map(widthOf))),
  };
  for (const name of names) tables[`given.${name}`] = new Float32Array(most * widthOf(name));
  spec.states?.forEach((words, i) => tables[`state.${i}`] = new Float32Array(sequences * words));
  const weights = spec.weights ?? createWeightStore(gpu);
  const runner: PlanRunner = await createPlanRunner(gpu, plans, { weights, tables });
  return {
    step({ capacity, rows: given, data, done = [] }): Promise<Float32Array> {
      const seen = new Map<number, number>();
      const rows: StepRow[] = given.map((row) => {
        const index = seen.get(row.sequence) ?? 0;
        seen.set(row.sequence, index + 1);
        return { ...row, index };
      });
      const tiles = packTiles(rows, 64);
      const states = new Uint32Array(sequences * STATE_WORDS);
      for (const sequence of done) states[sequence * STATE_WORDS] = 1;
      runner.write("rows", packRows(rows));
      runner.write("spans", packSpans(rows, sequences));
      runner.write("tiles", tiles);
      runner.write("states", states);
      for (const name of names) {
        const { width, margin: [before] = [0] } = spec.inputs[name];
        // What stands beside a view must not be read.
        const wide = new Float32Array(rows.length * widthOf(name)).fill(NaN);
        rows.forEach((_, i) =>
          wide.set(data[name].subarray(i * width, (i + 1) * width), i * widthOf(name) + before)
        );
        runner.write(`given.${name}`, wide);
      }
      const plan = plans[capacities.indexOf(capacity)];
      runner.run(plan, { rows: rows.length, tiles: tiles.length / 4, longest: 1 });
      return runner.read(plan, "out", rows.length);
    },
    [Symbol.dispose](): void {
      runner[Symbol.dispose]();
      if (!spec.weights) weights.release();
    },
  };
}

/** Picks rows of a row-major matrix. */
export function pickRows(data: Float32Array, width: number, rows: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * width);
  rows.forEach((row, i) => out.set(data.subarray(row * width, (row + 1) * width), i * width));
  return out;
}

/** Largest error over the rows, each over its largest value; rows that should be 0 count by the largest of all. */
export function rowError(got: Float32Array, want: Float64Array, width: number): number {
  const largest = (at: ArrayLike<number>, from: number, to: number) => {
    let most = 0;
    for (let i = from; i < to; i++) most = Math.max(most, Math.abs(at[i]));
    return most;
  };
  const overall = largest(want, 0, want.length) || 1;
  let worst = 0;
  for (let row = 0; row < want.length; row += width) {
    const scale = largest(want, row, row + width) || overall;
    for (let i = row; i < row + width; i++) {
      const error = Math.abs(got[i] - want[i]) / scale;
      if (!(error <= worst)) worst = Number.isNaN(error) ? Infinity : error;
    }
  }
  return worst;
}
