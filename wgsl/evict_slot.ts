// Frees one slot of a cache that is full, so that the next token has room: that of the token with the lowest score among
// those that may go.
//
//   slots ->   t0 t1 ... t255 | t0 t1 ...     a workgroup owns one row's cache of one KV head, or of all when they share
//                                             their slots; each thread has every 256th slot and finds the least of its
//                                             own; 16 threads compare 16 each, then one compares the 16 left
//
// Tokens are ordered by (score, position). Positions differ, so the least one does not depend on the order of comparing.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT, NONE, ROW_STRUCT, STATE_STRUCT, TURN_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode evictSlot}. */
export interface EvictSlotSpec {
  /** Whether each KV head has slots of its own, or all share those of head 0. */
  readonly heads: "each" | "mean";
  /**
   * Which tokens are too new to go: `window` keeps the newest `window` positions; `frozen` keeps those that the table of
   * windows protects and those that compressBlock has not yet scored.
   */
  readonly limit: "frozen" | "window";
  /** Order in which tokens go: by `slotScores`, or by position (the oldest first; StreamingLLM, arXiv:2309.17453). */
  readonly score: "stored" | "position";
}

const THREADS = 256;
const COLUMNS = 16;

/**
 * For each row, one a sequence: unless `delay` + 1 or more slots are left, freed ones and those behind the length taken
 * together, the token of the lowest score (of equals the one of the lowest position; NaN is lowest of all) is evicted
 * among those at positions from `sinks` to below the limit: its slot gets no position and goes to the end of the ring of
 * freed slots. When there is no such token, nothing is evicted.
 *
 * The limit is the row's position + 1 less the window: with `limit` window that is the parameter `window`; with `limit`
 * frozen it is the row's entry in `windows` without bit 31, and the limit is at most the extent's `frozen` or the turn's
 * origin, whichever is later.
 *
 * A step takes one slot. So when `delay` + 1 slots are left in the beginning, and this runs after every step, each new
 * token finds a slot, and none is written again before `delay` others were freed (cacheAppend has the same `delay`).
 * Nothing changes for sequences that are done, or that may have one more token only: no row follows it.
 */
export function evictSlot(spec: EvictSlotSpec): Kernel {
  const { heads, limit, score } = spec;
  const each = heads === "each";
  const frozen = limit === "frozen";
  const stored = score === "stored";
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
${frozen ? TURN_STRUCT : ""}
const NONE = ${NONE}u;
// Key of the score, position, slot: the least of each thread.
var<workgroup> least: array<vec3<u32>, ${THREADS}>;
${
    stored
      ? `// Grows with the score; 0 for NaN.
fn keyOf(score: f32) -> u32 {
  let bits = bitcast<u32>(score);
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0u; }
  if (magnitude == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}`
      : ""
  }

fn lesser(a: vec3<u32>, b: vec3<u32>) -> vec3<u32> {
  return select(a, b, b.x < a.x || (b.x == a.x && b.y < a.y));
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = rowTable[group.y];
  // No row follows the last token.
  if (states[row.sequence].done != 0u || states[row.sequence].remaining <= 1u) { return; }
  let layer = params.layer + group.z;
  let first = (layer * params.sequences + row.sequence) * params.kvHeads + group.x;
  let extent = extents[first];
  let full = extent.capacity - extent.length + extent.freeCount <= params.delay;
  ${
    frozen
      ? `let turn = turns[row.sequence];
  let window = windows[turn.windows + row.position - turn.origin] & 0x7fffffffu;
  let limit = min(row.position + 1u - min(window, row.position + 1u), max(extent.frozen, turn.origin));`
      : "let limit = row.position + 1u - min(params.window, row.position + 1u);"
  }

  var own = vec3<u32>(NONE);
  for (var slot = select(extent.length, local, full); slot < extent.length; slot += ${THREADS}u) {
    let position = slotPositions[extent.positions + slot];
    // The position of a freed slot is over every limit.
    if (position >= params.sinks && position < limit) {
      own = lesser(own, vec3<u32>(${
    stored ? "keyOf(slotScores[extent.positions + slot])" : "0u"
  }, position, slot));
    }
  }
  least[local] = own;
  workgroupBarrier();
  if (local < ${COLUMNS}u) {
    for (var i = local + ${COLUMNS}u; i < ${THREADS}u; i += ${COLUMNS}u) { own = lesser(own, least[i]); }
    least[local] = own;
  }
  workgroupBarrier();
  if (local != 0u) { return; }
  for (var i = 1u; i < ${COLUMNS}u; i++) { own = lesser(own, least[i]); }
  if (own.z == NONE) { return; }
  slotPositions[extent.positions + own.z] = NONE;
  freed[extent.positions + (extent.freeFirst + extent.freeCount) % extent.capacity] = own.z;
  ${each ? "let head = 0u; {" : "for (var head = 0u; head < params.kvHeads; head++) {"}
    extents[first + head].freeCount = extent.freeCount + 1u;
  }
}
`;
  return defineKernel({
    name: `evictSlot ${heads} ${limit} ${score}`,
    parameters: {
      rows: "u32",
      kvHeads: "u32",
      layer: "u32",
      layers: "u32",
      sequences: "u32",
      sinks: "u32",
      window: "u32",
      delay: "u32",
    },
    bindings: [
      read("rowTable", "array<Row>"),
      write("extents", "array<Extent>"),
      write("slotPositions", "array<u32>"),
      write("freed", "array<u32>"),
      ...(stored ? [read("slotScores", "array<f32>")] : []),
      read("states", "array<SequenceState>"),
      ...(frozen ? [read("turns", "array<Turn>"), read("windows", "array<u32>")] : []),
    ],
    grid: ({ rows, kvHeads, layers }) => [each ? kvHeads : 1, rows, layers],
    body,
  });
}
