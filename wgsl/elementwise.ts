// What kernels that compute every output on its own share: a flat range of outputs over folded workgroups.
//
//   workgroup 0: | t0 t1 ... t63 | t0 t1 ... t63 | t0 ... | t0 ... |   workgroup 1: | t0 t1 ...
//
// Every invocation computes four outputs a workgroup's width apart, so neighbours stay neighbours in memory.

import { foldGrid, type Grid, unroll } from "./kernel.ts";

const THREADS = 64;
const STEPS = 4;

/** Workgroups for `count` outputs. */
export function elementwiseGrid(count: number): Grid {
  return [...foldGrid(Math.ceil(count / (THREADS * STEPS))), 1];
}

/** Entry point that calls `fn element(i: u32)` for every i below the WGSL expression `count`. */
export function elementwiseMain(count: string): string {
  return `@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let first = (group.x + group.y * groups.x) * ${THREADS * STEPS}u + local;
  let count = ${count};
  ${unroll(STEPS, (s) => `if (first + ${s * THREADS}u < count) { element(first + ${s * THREADS}u); }`)}
}
`;
}
