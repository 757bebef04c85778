// Selects what a layer keeps anew after each decode step: of the tokens before the newest ones those of the highest scores
// that hold a share of all attention (top-p), whatever they are, tokens of the prompt or generated ones. The slots of all
// others are freed (the algorithm box of PyramidInfer, arXiv:2405.12532).
//
//   slots ->   t0 t1 ... t255 | t0 t1 ...     a workgroup owns one row's cache in one layer; its threads take turns along
//                                             the slots to add up, then each has one piece of them to free slots in order
//
//   tokens by position   | sinks | context: the best stay .......... | newest `window` positions |
//
// Three borders are looked for (selection_border.ts): that of the attention, which tells how many tokens stay; that of so
// many tokens, as limits may ask for more or fewer; and that of positions among tokens of one score, if there is such a tie.
// Scores are whole numbers of units, so that sums do not depend on where in the cache tokens stand.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { ATTENTION_UNITS } from "./nucleus_budget.ts";
import { SCORE_KEY, SELECTION_THREADS, selectionBorder } from "./selection_border.ts";
import { EXTENT_STRUCT, NONE, NUCLEUS_STRUCT, ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

const THREADS = SELECTION_THREADS;

/**
 * For each row, one a sequence, and the layers [layer, layer + layers): the context is what the layer keeps at positions
 * below the row's + 1 - `window` of its {@linkcode NUCLEUS_STRUCT NucleusRule} (of `ruleLayers` a sequence). Of it stay the
 * tokens of positions below `sinks`, and the fewest others of the highest `slotScores` (ties to the lower position) with
 * which the scores that stay are `share` of the context's; so many more that `minimum` tokens are left; but only as many
 * that with the next one they are at most `most`. The sinks stay in any case. Scores are from 0 to 1, and all of a sequence's
 * are about 1 at most. With a share of 1 and over, only `most` is a limit.
 *
 * The slots of all others get no position and go to the ring of freed slots in the order of slots. If fewer than `delay`
 * were in the ring before, `frozen` moves on so far that cacheAppend leaves them alone for `delay` rows.
 *
 * All KV heads share the slots of head 0. Nothing changes for sequences that are done, or that may have one more token
 * only: no row follows it.
 */
export function evictNucleus(): Kernel {
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
${NUCLEUS_STRUCT}
${SCORE_KEY}
const NONE = ${NONE}u;
const BY_ATTENTION = 0u;
const BY_NUMBER = 1u;
const BY_POSITION = 2u;
// Units of the context, and of its sinks; numbers of tokens: all, the context's, its sinks; above the border, at it.
var<workgroup> totals: array<atomic<u32>, 7>;
var<workgroup> goingCounts: array<u32, ${THREADS}>;

fn unitsOf(score: f32) -> u32 { return u32(clamp(score, 0.0, 1.0) * ${ATTENTION_UNITS}.0 + 0.5); }

fn mayGo(position: u32, limit: u32) -> bool { return position >= params.sinks && position < limit; }
${
    selectionBorder({
      parameters: "entry: u32, length: u32, limit: u32, what: u32, tied: u32",
      tallyAll: `for (var slot = local; slot < length; slot += ${THREADS}u) {
      let position = slotPositions[entry + slot];
      if (!mayGo(position, limit)) { continue; }
      let score = slotScores[entry + slot];
      let key = scoreKey(score);
      if (what != BY_POSITION) {
        tally(key, select(1u, unitsOf(score), what == BY_ATTENTION), level, local);
      } else if (key == tied) {
        tally(NO_KEY - position, 1u, level, local);
      }
    }`,
    })
  }
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = rowTable[group.x];
  // No row follows the last token.
  if (states[row.sequence].done != 0u || states[row.sequence].remaining <= 1u) { return; }
  let layer = params.layer + group.y;
  let first = (layer * params.sequences + row.sequence) * params.kvHeads;
  let extent = extents[first];
  let entry = extent.positions;
  let rule = rules[row.sequence * params.ruleLayers + layer];
  let limit = row.position + 1u - min(rule.window, row.position + 1u);

  if (local < 7u) { atomicStore(&totals[local], 0u); }
  workgroupBarrier();
  var units = vec2<u32>(0u);
  var tokens = vec3<u32>(0u);
  for (var slot = local; slot < extent.length; slot += ${THREADS}u) {
    let position = slotPositions[entry + slot];
    if (position == NONE) { continue; }
    tokens.x++;
    if (position >= limit) { continue; }
    let weight = unitsOf(slotScores[entry + slot]);
    units.x += weight;
    tokens.y++;
    if (position < params.sinks) {
      units.y += weight;
      tokens.z++;
    }
  }
  atomicAdd(&totals[0], units.x);
  atomicAdd(&totals[1], units.y);
  atomicAdd(&totals[2], tokens.x);
  atomicAdd(&totals[3], tokens.y);
  atomicAdd(&totals[4], tokens.z);
  workgroupBarrier();
  let all = atomicLoad(&totals[0]);
  let sinkUnits = atomicLoad(&totals[1]);
  let context = atomicLoad(&totals[3]);
  let sinks = atomicLoad(&totals[4]);
  let newest = atomicLoad(&totals[2]) - context;

  var keep = context;
  let least = max(sinks, min(context, max(rule.minimum, newest) - newest));
  if (rule.share < 1.0 && least < context) {
    keep = least;
    let wanted = min(u32(ceil(rule.share * f32(all))), all);
    if (wanted > sinkUnits) {
      let edge = border(wanted - sinkUnits, local, entry, extent.length, limit, BY_ATTENTION, 0u);
      var above = 0u;
      var equal = 0u;
      for (var slot = local; slot < extent.length; slot += ${THREADS}u) {
        if (!mayGo(slotPositions[entry + slot], limit)) { continue; }
        let score = slotScores[entry + slot];
        let masked = scoreKey(score) & edge.mask;
        above += select(0u, 1u, masked > edge.key);
        // Scores of no unit add nothing, wherever they are.
        equal += select(0u, 1u, masked == edge.key && unitsOf(score) > 0u);
      }
      atomicAdd(&totals[5], above);
      atomicAdd(&totals[6], equal);
      workgroupBarrier();
      let equals = atomicLoad(&totals[6]);
      // Where not all of them are needed they are of one score, and of as many units each.
      let each = max(edge.equal / max(equals, 1u), 1u);
      let taken = select((edge.need + each - 1u) / each, equals, edge.need == edge.equal);
      keep = max(keep, sinks + atomicLoad(&totals[5]) + taken);
    }
  }
  keep = max(min(keep, max(rule.most, newest + 1u) - newest - 1u), sinks);
  if (keep >= context) { return; }

  // Nothing has this key, nor one above it.
  var edge = Border(NO_KEY, NO_KEY, 0u, 0u);
  var oldest = Border(0u, 0u, 0u, 0u);
  if (keep > sinks) {
    edge = border(keep - sinks, local, entry, extent.length, limit, BY_NUMBER, 0u);
    if (edge.need < edge.equal) {
      oldest = border(edge.need, local, entry, extent.length, limit, BY_POSITION, edge.key);
    }
  }
  let piece = (extent.length + ${THREADS - 1}u) / ${THREADS}u;
  let begin = min(local * piece, extent.length);
  let end = min(begin + piece, extent.length);
  var going = 0u;
  for (var slot = begin; slot < end; slot++) {
    if (goes(entry + slot, limit, edge, oldest)) { going++; }
  }
  goingCounts[local] = going;
  workgroupBarrier();
  var before = 0u;
  var count = 0u;
  for (var i = 0u; i < ${THREADS}u; i++) {
    before += select(0u, goingCounts[i], i < local);
    count += goingCounts[i];
  }
  var at = extent.freeFirst + extent.freeCount + before;
  for (var slot = begin; slot < end; slot++) {
    if (!goes(entry + slot, limit, edge, oldest)) { continue; }
    slotPositions[entry + slot] = NONE;
    freed[entry + at % extent.capacity] = slot;
    at++;
  }
  // Everyone has read the extent.
  storageBarrier();
  for (var head = local; head < params.kvHeads; head += ${THREADS}u) {
    extents[first + head].freeCount = extent.freeCount + count;
    if (extent.freeCount < params.delay) {
      let until = row.position + 1u + params.delay - extent.freeCount;
      extents[first + head].frozen = max(extent.frozen, until);
    }
  }
}

fn goes(entry: u32, limit: u32, edge: Border, oldest: Border) -> bool {
  let position = slotPositions[entry];
  if (!mayGo(position, limit)) { return false; }
  let key = scoreKey(slotScores[entry]) & edge.mask;
  return key < edge.key || (key == edge.key && ((NO_KEY - position) & oldest.mask) < oldest.key);
}
`;
  return defineKernel({
    name: "evictNucleus",
    parameters: {
      rows: "u32",
      kvHeads: "u32",
      layer: "u32",
      layers: "u32",
      sequences: "u32",
      ruleLayers: "u32",
      sinks: "u32",
      delay: "u32",
    },
    bindings: [
      read("rowTable", "array<Row>"),
      write("extents", "array<Extent>"),
      write("slotPositions", "array<u32>"),
      write("freed", "array<u32>"),
      read("slotScores", "array<f32>"),
      read("states", "array<SequenceState>"),
      read("rules", "array<NucleusRule>"),
    ],
    grid: ({ rows, layers }) => [rows, layers, 1],
    body,
  });
}
