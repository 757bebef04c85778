// Makes room in the KV cache for the rows of a step: moves each extent's length on and notes the positions of its new
// slots. Runs once before the layers of the step.
//
//   extent            [ 0 ............ start | start + index of each new row ... length | ... capacity ]
//   slotPositions       positions of old rows | position of each new row
//
// The old length is read once, into workgroup memory, before any invocation writes, and no other workgroup touches the
// extent. With shared positions one workgroup owns a sequence: its invocations lie along the sequence's extents, then
// along its rows. Otherwise one workgroup owns an extent, and its invocations lie along the rows.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT, ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode cacheAppend}. */
export interface CacheAppendSpec {
  /**
   * Whether all layers and heads of a sequence share one range of slot positions, as they do as long as nothing is
   * ever dropped. Then only the extent of layer 0, head 0 writes it.
   */
  readonly sharedPositions: boolean;
}

const THREADS = 64;

/**
 * For every (layer, sequence, KV head): `start = length`, `length = min(length + new rows, capacity)`, and
 * `slotPositions[positions + start + row.index] = row.position` for each new row whose slot is within the capacity. A
 * sequence that is done gets no new rows.
 *
 * `spans` has, for each sequence, its first row in `rowTable` and its number of rows; a sequence's rows stand together.
 */
export function cacheAppend(spec: CacheAppendSpec): Kernel {
  const { sharedPositions } = spec;
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
var<workgroup> oldLength: u32;

fn extend(index: u32, count: u32) {
  let start = extents[index].length;
  extents[index].start = start;
  extents[index].length = min(start + count, extents[index].capacity);
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.${sharedPositions ? "x" : "y"};
  let span = spans[sequence];
  let count = select(span.y, 0u, states[sequence].done != 0u);
  ${
    sharedPositions ? "let owner = sequence * params.kvHeads;" : `let layer = group.x / params.kvHeads;
  let owner = (layer * params.sequences + sequence) * params.kvHeads + group.x % params.kvHeads;`
  }
  if (local == 0u) { oldLength = extents[owner].length; }
  workgroupBarrier();
  let start = oldLength;
  ${
    sharedPositions
      ? `for (var i = local; i < params.layers * params.kvHeads; i += ${THREADS}u) {
    let layer = i / params.kvHeads;
    extend((layer * params.sequences + sequence) * params.kvHeads + i % params.kvHeads, count);
  }`
      : "if (local == 0u) { extend(owner, count); }"
  }
  let capacity = extents[owner].capacity;
  let positions = extents[owner].positions;
  for (var i = local; i < count; i += ${THREADS}u) {
    let row = rowTable[span.x + i];
    let slot = start + row.index;
    if (slot < capacity) { slotPositions[positions + slot] = row.position; }
  }
}
`;
  return defineKernel({
    name: `cacheAppend${sharedPositions ? " shared positions" : ""}`,
    parameters: { layers: "u32", sequences: "u32", kvHeads: "u32" },
    bindings: [
      write("extents", "array<Extent>"),
      read("states", "array<SequenceState>"),
      read("spans", "array<vec2<u32>>"),
      read("rowTable", "array<Row>"),
      write("slotPositions", "array<u32>"),
    ],
    grid: ({ layers, sequences, kvHeads }) =>
      sharedPositions ? [sequences, 1, 1] : [layers * kvHeads, sequences, 1],
    body,
  });
}
