// A target to trace ops for, without a device.

import {
  createTrace,
  type Rows,
  type Target,
  type Trace,
  type Weight,
  type WeightView,
} from "../../lib/graph/mod.ts";

/** The step's rows. */
export const ROWS: Rows = { name: "rows", capacity: 16, thin: false };

/** Few rows. */
export const THIN_ROWS: Rows = { name: "rows", capacity: 2, thin: true };

/** Begins a trace for some rows, all of whose logits are wanted. */
export function traceFor(rows: Rows = ROWS, target: Partial<Target> = {}): Trace {
  return createTrace({
    phase: rows.thin ? "decode" : "prefill",
    rows,
    logits: rows,
    sequences: 1,
    slots: {},
    ragged: false,
    lastRows: false,
    reuseDelay: 0,
    longest: 64,
    cacheType: "f32",
    features: { f16: true, subgroups: false, subgroupMinSize: 4, subgroupMaxSize: 128, timestamps: false },
    bindingBytes: 2 ** 27,
    workgroupBytes: 16384,
    ...target,
  });
}

/** Describes an f32 weight. */
export function weightOf(name: string, rows: number, columns: number): Weight {
  return { name, rows, columns, dtype: "f32" };
}

/** A range of a weight's rows. */
export function range(weight: Weight, first: number, rows: number): WeightView {
  return { weight, first, rows };
}
