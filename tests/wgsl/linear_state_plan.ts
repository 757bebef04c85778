// Plans of an op that keeps a matrix for each KV head. Inputs come from tables: what a test writes stands in the plan as
// values, queries, keys and values side by side in one buffer.

import type { Gpu } from "../../lib/gpu/mod.ts";
import {
  createTrace,
  defineKernel,
  lower,
  type OpDefinition,
  type Plan,
  read,
  resource,
  type Rows,
  type Trace,
  type Value,
  valueOperand,
  write,
} from "../../lib/graph/mod.ts";
import type { RecurrentState } from "../../lib/ops/recurrent_state.ts";
import type { StateHeads } from "../../lib/ops/state_heads.ts";
import { elementwiseGrid, elementwiseMain } from "../../wgsl/elementwise.ts";

/** Inputs of one row of one KV head. */
export interface HeadRow {
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly gates: Readonly<Record<string, Float32Array>>;
}

/** An op and its oracle. */
export interface StateOp {
  /** Numbers of each gate for a KV head, and how they are made: `index` counts all numbers of a gate of a step. */
  readonly gates: Readonly<
    Record<string, { readonly width: number; readonly value: (random: number, index: number) => number }>
  >;
  /** Whether keys have length 1. */
  readonly unitKeys: boolean;
  /** Traces the op. */
  readonly apply: (
    trace: Trace,
    inputs: Record<string, Value>,
    heads: StateHeads,
    state: RecurrentState,
  ) => Value;
  /** Advances the state [keySize][valueSize] of a KV head by a row. */
  readonly step: (state: Float64Array, row: HeadRow) => void;
}

/** One step: the rows of each sequence, by which kernels, and which sequences are done. */
export interface SceneStep {
  /** `chunks`, `few` (row by row, several of a sequence) or `decode` (at most one row of a sequence). */
  readonly kind: "chunks" | "few" | "decode";
  /** Rows by sequence; sequences stand in the step from the last to the first. */
  readonly rows: readonly number[];
  /** Sequences that are done. */
  readonly done?: readonly number[];
}

/** Columns before the queries in the buffer of the inputs. */
export const MARGIN = 4;

/** Copies a table into a value. */
const feedOp: OpDefinition<{ readonly name: string }> = {
  kind: "feed",
  lower({ outputs: [y], attributes: { name } }, emit): void {
    const kernel = defineKernel({
      name: "feed",
      parameters: { count: "u32" },
      bindings: [read("x", "array<f32>"), write("y", "array<f32>")],
      grid: ({ count }) => elementwiseGrid(count),
      body: `fn element(i: u32) { y[i] = x[i]; }\n${elementwiseMain("params.count")}`,
    });
    emit.dispatch(
      kernel,
      [resource(name), valueOperand(y)],
      (counts) => ({ count: counts[y.rows.name] * y.width }),
    );
  },
};

/** Makes the plan of a kind of step; its results are `o` and the `state` after it. */
export function planFor(
  gpu: Gpu,
  op: StateOp,
  heads: StateHeads,
  kind: SceneStep["kind"],
  sequences: number,
  most: number,
): Plan {
  const rows: Rows = {
    name: "rows",
    capacity: kind === "chunks" ? most : kind === "few" ? 32 : sequences,
    thin: false,
  };
  const trace = createTrace({
    phase: kind === "decode" ? "decode" : "prefill",
    rows,
    logits: rows,
    sequences,
    slots: {},
    longest: 512,
    ragged: false,
    lastRows: false,
    reuseDelay: 0,
    cacheType: "f32",
    features: gpu.features,
    bindingBytes: 2 ** 27,
    workgroupBytes: 16384,
  });
  const { kvHeads, keySize, valueSize } = heads;
  const words = kvHeads * keySize * valueSize;
  const feed = (name: string, width: number, of = rows): Value => {
    const value = trace.value(name, of, width);
    trace.append(feedOp, [], [value], { name });
    return value;
  };
  const widths = { q: heads.heads * keySize, k: kvHeads * keySize, v: kvHeads * valueSize };
  const root = feed("inputs", MARGIN + widths.q + widths.k + widths.v);
  const inputs: Record<string, Value> = {};
  let offset = MARGIN;
  for (const [name, width] of Object.entries(widths)) {
    inputs[name] = trace.value(name, rows, width);
    inputs[name].view = { of: root, offset };
    offset += width;
  }
  for (const [name, { width }] of Object.entries(op.gates)) inputs[name] = feed(name, kvHeads * width);
  const o = op.apply(trace, inputs, heads, { name: "state.0", layer: 0, words });
  const state = trace.value("state.0", { name: "sequences", capacity: sequences, thin: true }, words);
  trace.append(feedOp, [], [state], { name: "state.0" });
  return lower(trace, [], { o, state });
}
