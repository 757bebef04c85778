// Notes the scores of a step's rows by the slots that they got. One invocation a row.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT, ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

const THREADS = 64;

/**
 * `slotScores[positions + start + index] = scores[head * stride + row]` for each row and the KV heads
 * [0, scoredHeads); nothing for a sequence that is done, nor beyond the capacity. With one scored head the heads of a
 * layer share their positions.
 */
export function storeScores(): Kernel {
  return defineKernel({
    name: "storeScores",
    parameters: {
      rows: "u32",
      scoredHeads: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      stride: "u32",
    },
    bindings: [
      read("scores", "array<f32>"),
      read("rowTable", "array<Row>"),
      read("extents", "array<Extent>"),
      read("states", "array<SequenceState>"),
      write("slotScores", "array<f32>"),
    ],
    grid: ({ rows, scoredHeads }) => [Math.ceil(rows / THREADS), scoredHeads, 1],
    body: `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let index = group.x * ${THREADS}u + local;
  if (index >= params.rows) { return; }
  let row = rowTable[index];
  if (states[row.sequence].done != 0u) { return; }
  let extent = extents[(params.layer * params.sequences + row.sequence) * params.kvHeads + group.y];
  let slot = extent.start + row.index;
  if (slot < extent.capacity) { slotScores[extent.positions + slot] = scores[group.y * params.stride + index]; }
}
`,
  });
}
