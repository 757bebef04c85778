// Makes a layer's staging extents as long as what its cache has already, and copies the positions of those slots:
// stageSlots for the tables.
//
//   positions   [ 0 ......... length | ... capacity ]      NONE where a slot was evicted
//                      |
//   staged      [ 0 ......... length = start | the step's rows come here ... ]
//
// One invocation a slot of a (sequence, head), `columns` for each in one flat index; that of slot 0 sets the length.

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT } from "./tables.ts";

const THREADS = 64;

/**
 * For every (sequence, KV head) of a layer: `start` and `length` of its staging extent become the `length` of its extent,
 * and its staged positions those of the slots below, `NONE` included; both up to the staging extent's capacity.
 * `columns` is the greatest length; with 0 there is nothing to copy, and the staging extents become empty.
 * `stagingExtents` has the extents of one layer, at index sequence * kvHeads + head. Heads that share staged positions must
 * have the same ones; they all write them.
 */
export function stagePositions(): Kernel {
  const body = `
${EXTENT_STRUCT}

@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let item = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let columns = max(params.columns, 1u);
  let slot = item % columns;
  let pair = item / columns;
  if (pair >= params.sequences * params.kvHeads) { return; }
  let extent = extents[params.layer * params.sequences * params.kvHeads + pair];
  let length = min(min(extent.length, params.columns), stagingExtents[pair].capacity);
  if (slot == 0u) {
    stagingExtents[pair].start = length;
    stagingExtents[pair].length = length;
  }
  if (slot < length) {
    stagingPositions[stagingExtents[pair].positions + slot] = slotPositions[extent.positions + slot];
  }
}
`;
  return defineKernel({
    name: "stagePositions",
    parameters: { columns: "u32", layer: "u32", sequences: "u32", kvHeads: "u32" },
    bindings: [
      read("slotPositions", "array<u32>"),
      write("stagingPositions", "array<u32>"),
      read("extents", "array<Extent>"),
      write("stagingExtents", "array<Extent>"),
    ],
    grid: ({ columns, sequences, kvHeads }) => [
      ...foldGrid(Math.ceil(Math.max(columns, 1) * sequences * kvHeads / THREADS)),
      1,
    ],
    body,
  });
}
