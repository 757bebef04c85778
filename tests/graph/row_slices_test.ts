import { assertEquals, assertThrows } from "@std/assert";
import { placementOf, sliceOf, sliceRows } from "../../lib/graph/mod.ts";
import { withSlices } from "../../lib/graph/row_slices.ts";
import { traceFor } from "../ops/trace_target.ts";

const ROWS = { name: "many", capacity: 1100, thin: false };

Deno.test("sliceRows() covers all rows, each once", () => {
  const trace = traceFor(ROWS);
  const slices = sliceRows(trace, ROWS, 512);
  assertEquals(slices.map(({ capacity }) => capacity), [512, 512, 76]);
  assertEquals(slices.map(({ slice }) => slice!.first), [0, 512, 1024]);
  for (const count of [0, 1, 511, 512, 513, 1024, 1100]) {
    const counts = withSlices({ many: count, other: 3 }, trace.rowSlices);
    const parts = slices.map(({ name }) => counts[name]);
    assertEquals(parts.reduce((a, b) => a + b, 0), count);
    assertEquals(parts.every((part, i) => part === 0 || i === 0 || parts[i - 1] === 512), true);
    assertEquals(counts.other, 3);
  }
});

Deno.test("sliceOf() is a view of the rows of a slice", () => {
  const trace = traceFor(ROWS);
  const [, second] = sliceRows(trace, ROWS, 512);
  const value = trace.value("x", ROWS, 12);
  const part = sliceOf(trace, value, second);
  assertEquals(placementOf(part), { root: value, firstRow: 512, offset: 0, stride: 12 });
  assertEquals([part.rows, part.width], [second, 12]);
  assertThrows(() => sliceOf(trace, part, second), TypeError, "are no slice of rows");
});
