// Makes room in the KV cache for the rows of a step: moves each extent's length on and notes the positions of its new
// slots. Runs once before the layers of the step.
//
//   extent            [ 0 ............ start | start + index of each new row ... length | ... capacity ]
//   slotPositions       positions of old rows | position of each new row
//
// When slots are reused, the one row of a sequence takes the slot that was freed first, if more than `delay` are free:
//
//   freed (a ring)    [ ... | freeFirst: slot of the row | freeCount - 1 further ones | ... capacity ]
//
// or none of them while the row's position is below `frozen`.
//
// The first new slot is read once, into workgroup memory, before any invocation writes, and no other workgroup touches
// the extent. With shared positions one workgroup owns a sequence: its invocations lie along the sequence's extents, then
// along its rows. Otherwise one workgroup owns an extent, and its invocations lie along the rows. Extents that share their
// positions share the ring, which is only read here, and are moved on alike.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT, ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode cacheAppend}. */
export interface CacheAppendSpec {
  /**
   * Whether all layers and heads of a sequence share one range of slot positions, as they do as long as nothing is
   * ever dropped. Then only the extent of the first layer, head 0 writes it. Otherwise heads may share that of their
   * layer's head 0, which then writes it for them.
   */
  readonly sharedPositions: boolean;
  /** Whether freed slots are used again. A sequence has one row at most then, and positions are not shared by layers. */
  readonly reuse: boolean;
}

const THREADS = 64;

/**
 * For every (layer, sequence, KV head) of the `layers` layers from `firstLayer` on: `start = length`,
 * `length = min(length + new rows, capacity)`, and `slotPositions[positions + start + row.index] = row.position` for each
 * new row whose slot is within the capacity. A sequence that is done gets no new rows.
 *
 * With `reuse` and more than `delay` freed slots, `start` is the slot that was freed first and the length stays, for rows
 * from position `frozen` on; a slot is so left as it is until `delay` further ones were freed. `freed` is the table of the
 * rings.
 *
 * `spans` has, for each sequence, its first row in `rowTable` and its number of rows; a sequence's rows stand together.
 *
 * @throws {TypeError} when slots are to be reused where layers share them.
 */
export function cacheAppend(spec: CacheAppendSpec): Kernel {
  const { sharedPositions, reuse } = spec;
  if (sharedPositions && reuse) {
    throw new TypeError("Layers that share their slots never free one: leave out reuse, or sharedPositions");
  }
  const takesFreed =
    "count > 0u && extents[index].freeCount > params.delay && position >= extents[index].frozen";
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
var<workgroup> firstNew: u32;

fn firstSlot(index: u32, count: u32, position: u32) -> u32 {
  ${
    reuse
      ? `if (${takesFreed}) {
    return freed[extents[index].positions + extents[index].freeFirst % extents[index].capacity];
  }`
      : ""
  }
  return extents[index].length;
}

fn extend(index: u32, count: u32, position: u32) {
  extents[index].start = firstSlot(index, count, position);
  ${
    reuse
      ? `if (${takesFreed}) {
    extents[index].freeFirst = (extents[index].freeFirst + 1u) % extents[index].capacity;
    extents[index].freeCount -= 1u;
    return;
  }`
      : ""
  }
  extents[index].length = min(extents[index].length + count, extents[index].capacity);
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.${sharedPositions ? "x" : "y"};
  let span = spans[sequence];
  let count = select(span.y, 0u, states[sequence].done != 0u);
  ${
    sharedPositions
      ? "let owner = (params.firstLayer * params.sequences + sequence) * params.kvHeads;"
      : `let layer = params.firstLayer + group.x / params.kvHeads;
  let head = group.x % params.kvHeads;
  let owner = (layer * params.sequences + sequence) * params.kvHeads + head;`
  }
  // The one row that may get a freed slot.
  let position = rowTable[span.x].position;
  if (local == 0u) { firstNew = firstSlot(owner, count, position); }
  workgroupBarrier();
  let start = firstNew;
  ${
    sharedPositions
      ? `for (var i = local; i < params.layers * params.kvHeads; i += ${THREADS}u) {
    let layer = params.firstLayer + i / params.kvHeads;
    extend((layer * params.sequences + sequence) * params.kvHeads + i % params.kvHeads, count, position);
  }`
      : "if (local == 0u) { extend(owner, count, position); }"
  }
  let capacity = extents[owner].capacity;
  let positions = extents[owner].positions;
  ${sharedPositions ? "" : "if (head > 0u && positions == extents[owner - head].positions) { return; }"}
  for (var i = local; i < count; i += ${THREADS}u) {
    let row = rowTable[span.x + i];
    let slot = start + row.index;
    if (slot < capacity) { slotPositions[positions + slot] = row.position; }
  }
}
`;
  return defineKernel({
    name: `cacheAppend${sharedPositions ? " shared positions" : ""}${reuse ? " reuse" : ""}`,
    parameters: { layers: "u32", sequences: "u32", kvHeads: "u32", firstLayer: "u32", delay: "u32" },
    bindings: [
      write("extents", "array<Extent>"),
      read("states", "array<SequenceState>"),
      read("spans", "array<vec2<u32>>"),
      read("rowTable", "array<Row>"),
      write("slotPositions", "array<u32>"),
      ...(reuse ? [read("freed", "array<u32>")] : []),
    ],
    grid: ({ layers, sequences, kvHeads }) =>
      sharedPositions ? [sequences, 1, 1] : [layers * kvHeads, sequences, 1],
    body,
  });
}
