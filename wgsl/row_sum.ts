// Sums of rows.
//
// One workgroup a row; its invocations lie along the width: t0 t1 ... t(T-1) t0 t1 ...

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";

/** Compiled-in choices of {@linkcode rowSum}. */
export interface RowSumSpec {
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
}

const THREADS = 128;

/** out[row] = sum of x[row, 0 .. width). Bindings `x` [rows, width] f32, `out` [rows] f32. */
export function rowSum(spec: RowSumSpec): Kernel {
  const { subgroups } = spec;
  return defineKernel({
    name: `rowSum${subgroups ? " subgroups" : ""}`,
    parameters: { rows: "u32", width: "u32" },
    bindings: [read("x", "array<f32>"), write("out", "array<f32>")],
    grid: ({ rows }) => [...foldGrid(rows), 1],
    body: `
${workgroupReduce({ name: "reduceSum", size: THREADS, operation: "add", subgroups })}
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let first = row * params.width;
  var sum = 0.0;
  for (var i = local; i < params.width; i += ${THREADS}u) { sum += x[first + i]; }
  let total = reduceSum(sum, ${reduceArguments(subgroups)});
  if (local == 0u) { out[row] = total; }
}
`,
  });
}
