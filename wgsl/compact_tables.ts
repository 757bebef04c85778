// Copies what the tables by slot say of the rows that were selected: compactSlots for positions and scores.
//
//   staged      [ earlier ... start | 0  1  2  3  4  5  6 ... ]      rows j = map[0], map[1], ... of the sequence
//                                        |     |  |
//   positions   [ earlier ... start | 0  1  2 ... length ]
//
// One invocation a row of a (sequence, head), `columns` for each in one flat index.

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode compactTables}. */
export interface CompactTablesSpec {
  /** Whether slots have scores. */
  readonly scores: boolean;
}

const THREADS = 64;

/**
 * For every (sequence, KV head) and every i below `length - start` of its extent, which is at most `columns`, with
 * `j = map[head * stride + first + i]`: entry `positions + start + i` of `slotPositions` gets that of the staged slot
 * `start + j`, and with `scores` that of `slotScores` gets `scores[head * stride + first + j]`. Heads that share their
 * positions must keep the same rows; they all write them. A `stride` of 0 lets all heads share `map` and `scores`.
 */
export function compactTables(spec: CompactTablesSpec): Kernel {
  const { scores } = spec;
  const body = `
${EXTENT_STRUCT}
${SELECTION_STRUCT}

@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let item = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let i = item % params.columns;
  let pair = item / params.columns;
  let sequence = pair / params.kvHeads;
  if (sequence >= params.sequences) { return; }
  let head = pair % params.kvHeads;
  let extent = extents[(params.layer * params.sequences + sequence) * params.kvHeads + head];
  if (i >= min(extent.length - extent.start, params.columns)) { return; }
  let staged = stagingExtents[pair];
  let first = head * params.stride + selections[sequence].first;
  let row = map[first + i];
  let entry = extent.positions + extent.start + i;
  slotPositions[entry] = stagingPositions[staged.positions + staged.start + row];
  ${scores ? "slotScores[entry] = scores[first + row];" : ""}
}
`;
  return defineKernel({
    name: `compactTables${scores ? " scores" : ""}`,
    parameters: { columns: "u32", layer: "u32", sequences: "u32", kvHeads: "u32", stride: "u32" },
    bindings: [
      read("map", "array<u32>"),
      read("selections", "array<Selection>"),
      read("stagingExtents", "array<Extent>"),
      read("extents", "array<Extent>"),
      read("stagingPositions", "array<u32>"),
      write("slotPositions", "array<u32>"),
      ...(scores ? [read("scores", "array<f32>"), write("slotScores", "array<f32>")] : []),
    ],
    grid: ({ columns, sequences, kvHeads }) => [
      ...foldGrid(Math.ceil(columns * sequences * kvHeads / THREADS)),
      1,
    ],
    body,
  });
}
