// Slices of rows: what is computed row by row can be computed for some rows at a time, in smaller buffers.

import type { Trace } from "./trace.ts";
import type { Counts, Rows, Value } from "./value.ts";

/** Cuts rows into slices of at most `size`. */
export function sliceRows(trace: Trace, rows: Rows, size: number): Rows[] {
  return Array.from({ length: Math.ceil(rows.capacity / size) }, (_, i) => {
    const first = i * size;
    const slice: Rows = {
      name: `${rows.name}.${first}-`,
      capacity: Math.min(size, rows.capacity - first),
      thin: rows.thin,
      slice: { of: rows, first },
    };
    trace.rowSlices.set(slice.name, slice);
    return slice;
  });
}

/** The rows of a value that a slice of its rows has; a view of its buffer. */
export function sliceOf(trace: Trace, value: Value, slice: Rows): Value {
  if (slice.slice?.of !== value.rows) {
    throw new TypeError(`Rows ${slice.name} are no slice of rows ${value.rows.name}`);
  }
  const part = trace.value(value.name, slice, value.width);
  part.view = { of: value, offset: 0, firstRow: slice.slice.first };
  return part;
}

/** Adds the counts of slices to those of a step. */
export function withSlices(counts: Counts, slices: ReadonlyMap<string, Rows>): Counts {
  if (slices.size === 0) return counts;
  const all: Record<string, number> = { ...counts };
  for (const [name, { slice, capacity }] of slices) {
    all[name] = Math.max(0, Math.min(capacity, all[slice!.of.name] - slice!.first));
  }
  return all;
}
