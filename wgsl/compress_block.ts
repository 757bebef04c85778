// Compresses a block of generated tokens: of the `block` tokens before the protected newest ones it keeps those that got
// most attention from the protected ones, and frees the slots of the others (PyramidInfer, arXiv:2405.12532, 3.3).
//
//   tokens of a turn     ... | block: candidates | newest `window` tokens: protected, their rows score | (now)
//                             lowest position -> thread 0, next -> thread 1, ...
//
// A workgroup owns one row's cache of one KV head, or of all when they share their slots. Its threads look through all
// slots, because slots are in no order, then each has one candidate: it counts the better ones to know whether it stays,
// and those below it that go to know its place in the ring of freed slots.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT, NONE, ROW_STRUCT, STATE_STRUCT, TURN_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode compressBlock}. */
export interface CompressBlockSpec {
  /** Whether each KV head has slots of its own, or all share those of head 0. */
  readonly heads: "each" | "mean";
}

/** Most tokens in a block. */
export const MAX_BLOCK = 256;

/**
 * For each row, one a sequence, whose entry in `windows` has bit 31: the entry's other bits are the number `n` of protected
 * tokens, the newest, the row's own among them. `i0` is the number of the first of them, and candidates are the tokens of
 * numbers [i0 - block, i0). A candidate's score is the mean of the attention that the protected rows paid to it, weighted
 * from 1 to `distanceWeight` from the first to the last: `((1 - c i0) S0 + c S1) / n`, with its `slotSums` (S0, S1) from
 * slotScores and `c = (distanceWeight - 1) / (n - 1)`, 0 when n is 1. The best `windows[keeps + layer]` of them stay, with
 * `keeps` from the sequence's {@linkcode TURN_STRUCT Turn}; of equals those of the lowest positions. They have their score
 * in `slotScores`; the slots of the others get no position and go to the ring of freed slots, in the order of their
 * positions. All tokens before `i0` are frozen then.
 *
 * Blocks are of {@linkcode MAX_BLOCK} tokens at most, and `i0` is a multiple of the block. Nothing changes for sequences
 * that are done.
 */
export function compressBlock(spec: CompressBlockSpec): Kernel {
  const each = spec.heads === "each";
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
${TURN_STRUCT}
const NONE = ${NONE}u;
// By candidate, in the order of positions.
var<workgroup> slots: array<u32, ${MAX_BLOCK}>;
var<workgroup> scores: array<f32, ${MAX_BLOCK}>;
var<workgroup> dropped: array<u32, ${MAX_BLOCK}>;

@compute @workgroup_size(${MAX_BLOCK})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = rowTable[group.y];
  if (states[row.sequence].done != 0u) { return; }
  let turn = turns[row.sequence];
  let number = row.position - turn.origin;
  let window = windows[turn.windows + number];
  if ((window & 0x80000000u) == 0u) { return; }
  let rows = window & 0x7fffffffu;
  let firstRow = number + 1u - rows;
  let end = turn.origin + firstRow;
  let block = min(turn.block, ${MAX_BLOCK}u);
  let layer = params.layer + group.z;
  let first = (layer * params.sequences + row.sequence) * params.kvHeads + group.x;
  let extent = extents[first];

  slots[local] = NONE;
  workgroupBarrier();
  for (var slot = local; slot < extent.length; slot += ${MAX_BLOCK}u) {
    let position = slotPositions[extent.positions + slot];
    if (position < end && position + block >= end) { slots[position + block - end] = slot; }
  }
  workgroupBarrier();
  let slot = slots[local];
  let present = slot != NONE;
  let at = extent.positions + select(0u, slot, present);
  let weightStep = select(0.0, (params.distanceWeight - 1.0) / f32(rows - 1u), rows > 1u);
  let sums = slotSums[at];
  scores[local] = (sums.x + weightStep * (sums.y - f32(firstRow) * sums.x)) / f32(rows);
  workgroupBarrier();
  let score = scores[local];
  var better = 0u;
  for (var i = 0u; i < block; i++) {
    let other = scores[i];
    if (slots[i] != NONE && (other > score || (other == score && i < local))) { better++; }
  }
  let drop = present && better >= windows[turn.keeps + layer];
  dropped[local] = select(0u, 1u, drop);
  workgroupBarrier();
  var before = 0u;
  var count = 0u;
  for (var i = 0u; i < block; i++) {
    before += select(0u, dropped[i], i < local);
    count += dropped[i];
  }
  if (present && !drop) { slotScores[at] = score; }
  if (drop) {
    slotPositions[at] = NONE;
    freed[extent.positions + (extent.freeFirst + extent.freeCount + before) % extent.capacity] = slot;
  }
  // Everyone has read the extent.
  storageBarrier();
  ${
    each
      ? "if (local == 0u) { let head = 0u;"
      : `for (var head = local; head < params.kvHeads; head += ${MAX_BLOCK}u) {`
  }
    extents[first + head].freeCount = extent.freeCount + count;
    extents[first + head].frozen = end;
  }
}
`;
  return defineKernel({
    name: `compressBlock ${spec.heads}`,
    parameters: {
      rows: "u32",
      kvHeads: "u32",
      layer: "u32",
      layers: "u32",
      sequences: "u32",
      distanceWeight: "f32",
    },
    bindings: [
      read("rowTable", "array<Row>"),
      write("extents", "array<Extent>"),
      write("slotPositions", "array<u32>"),
      write("freed", "array<u32>"),
      read("slotSums", "array<vec2<f32>>"),
      write("slotScores", "array<f32>"),
      read("states", "array<SequenceState>"),
      read("turns", "array<Turn>"),
      read("windows", "array<u32>"),
    ],
    grid: ({ rows, kvHeads, layers }) => [each ? kvHeads : 1, rows, layers],
    body,
  });
}
