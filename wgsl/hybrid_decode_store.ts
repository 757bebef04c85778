// Takes one row a sequence into its state: what leaves the window goes into the sums, and the row into the ring.
//
// A workgroup owns one row and one KV head, and all of the state that belongs to them:
//
//   leaving?    slots by turns:                t0 t1 ... t255 t0 ...
//   sums        vectors by turns, for each slot that leaves (one as a rule, more after a gap between positions)
//   entry       vectors by turns: tag, key, features, value

import { checkHybrid, hybridLayout, type HybridSizes } from "./hybrid_layout.ts";
import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

const THREADS = 256;

/**
 * Changes `state` (see hybrid_layout.ts) for `rows` rows of different sequences, except those that are done.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function hybridDecodeStore(sizes: HybridSizes): Kernel {
  checkHybrid(sizes);
  const { window } = sizes;
  const { words, features, entry, featuresAt, valueAt, sums, head } = hybridLayout(sizes);
  const body = `
${ROW_STRUCT}
${STATE_STRUCT}
${POSITION_TAG}
var<workgroup> leaves: array<u32, ${window}>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = group.x;
  let kvHead = group.y;
  let sequence = rowTable[row].sequence;
  if (states[sequence].done != 0u) { return; }
  let position = rowTable[row].position;
  let base = (sequence * params.kvHeads + kvHead) * ${head}u;
  let ring = base + ${sums}u;
  for (var slot = local; slot < ${window}u; slot += ${THREADS}u) {
    let tag = state[ring + slot * ${entry}u];
    leaves[slot] = select(0u, 1u, hasTag(tag) && position - taggedPosition(tag) >= ${window}u);
  }
  workgroupBarrier();
  for (var slot = 0u; slot < ${window}u; slot++) {
    if (leaves[slot] == 0u) { continue; }
    let held = ring + slot * ${entry}u;
    for (var item = local; item < ${sums}u; item += ${THREADS}u) {
      let feature = item / ${words + 1}u;
      let word = item % ${words + 1}u;
      let f = state[held + ${featuresAt}u + feature / 4u][feature % 4u];
      let v = select(
        state[held + ${valueAt}u + min(word, ${words - 1}u)],
        vec4<f32>(1.0, 0.0, 0.0, 0.0),
        word == ${words}u,
      );
      state[base + item] = fma(vec4<f32>(f), v, state[base + item]);
    }
  }
  // The entry that is overwritten may have left just now: all have read it by here.
  storageBarrier();
  workgroupBarrier();
  let own = position % ${window}u;
  for (var slot = local; slot < ${window}u; slot += ${THREADS}u) {
    if (leaves[slot] != 0u && slot != own) { state[ring + slot * ${entry}u] = vec4<f32>(0.0); }
  }
  let place = ring + own * ${entry}u;
  for (var item = local; item < ${entry}u; item += ${THREADS}u) {
    if (item == 0u) {
      state[place] = positionTag(position);
    } else if (item < ${featuresAt}u) {
      state[place + item] = k[(row * params.kStride + params.kOffset) / 4u + kvHead * ${words}u + item - 1u];
    } else if (item < ${valueAt}u) {
      state[place + item] =
        kFeatures[(row * params.fStride + params.fOffset) / 4u + kvHead * ${features}u + item - ${featuresAt}u];
    } else {
      state[place + item] = v[(row * params.vStride + params.vOffset) / 4u + kvHead * ${words}u + item - ${valueAt}u];
    }
  }
}
`;
  return defineKernel({
    name: `hybridDecodeStore head ${sizes.headSize} features ${sizes.featureSize} window ${window}`,
    parameters: {
      rows: "u32",
      kvHeads: "u32",
      kStride: "u32",
      kOffset: "u32",
      fStride: "u32",
      fOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
    },
    bindings: [
      read("k", "array<vec4<f32>>"),
      read("kFeatures", "array<vec4<f32>>"),
      read("v", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
    ],
    grid: ({ rows, kvHeads }) => [rows, kvHeads, 1],
    body,
  });
}
