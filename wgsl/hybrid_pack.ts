// Puts the keys, key features and values that a prefill step's rows may see side by side: those of the window before
// each sequence's first row, out of the states, and those of the rows.
//
// An invocation copies one vector of an entry (see hybrid_layout.ts); all vectors lie in one flat index:
//
//   entry 0: | KV head 0: tag, key, features, value | KV head 1 ... |   entry 1: ...

import { checkHybrid, hybridLayout, type HybridSizes } from "./hybrid_layout.ts";
import { defineKernel, foldGrid, type Kernel, type Parameters, read, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { ROW_STRUCT } from "./tables.ts";

const THREADS = 256;

/**
 * Makes `packed` [sequences * window + rows, kvHeads, entry]. An entry of a position without a token is all zero, so that
 * it adds nothing to any sum. Entries of sequences without a row in the step are left as they are. `k[row * kStride +
 * kOffset]` begins a row's keys, and so on for `kFeatures` (f) and `v`.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function hybridPack(sizes: HybridSizes): Kernel {
  checkHybrid(sizes);
  const { window } = sizes;
  const { words, features, entry, featuresAt, valueAt, sums, head } = hybridLayout(sizes);
  const body = `
${ROW_STRUCT}
${POSITION_TAG}
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let index = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let item = index % ${entry}u;
  let kvHead = index / ${entry}u % params.kvHeads;
  let place = index / ${entry}u / params.kvHeads;
  let older = params.sequences * ${window}u;
  if (place >= older + params.rows) { return; }
  if (place < older) {
    let sequence = place / ${window}u;
    let span = spans[sequence];
    if (span.y == 0u) { return; }
    let position = i32(rowTable[span.x].position) - ${window} + i32(place % ${window}u);
    var copied = vec4<f32>(0.0);
    if (position >= 0) {
      let slot = u32(position) % ${window}u;
      let source = (sequence * params.kvHeads + kvHead) * ${head}u + ${sums}u + slot * ${entry}u;
      let tag = state[source];
      if (hasTag(tag) && taggedPosition(tag) == u32(position)) { copied = state[source + item]; }
    }
    packed[index] = copied;
    return;
  }
  let row = place - older;
  if (item == 0u) {
    packed[index] = positionTag(rowTable[row].position);
  } else if (item < ${featuresAt}u) {
    packed[index] = k[(row * params.kStride + params.kOffset) / 4u + kvHead * ${words}u + item - 1u];
  } else if (item < ${valueAt}u) {
    packed[index] = kFeatures[(row * params.fStride + params.fOffset) / 4u + kvHead * ${features}u + item - ${featuresAt}u];
  } else {
    packed[index] = v[(row * params.vStride + params.vOffset) / 4u + kvHead * ${words}u + item - ${valueAt}u];
  }
}
`;
  const items = ({ rows, sequences, kvHeads }: Parameters): number =>
    (rows + sequences * window) * kvHeads * entry;
  return defineKernel({
    name: `hybridPack head ${sizes.headSize} features ${sizes.featureSize} window ${window}`,
    parameters: {
      rows: "u32",
      sequences: "u32",
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
      read("spans", "array<vec2<u32>>"),
      read("state", "array<vec4<f32>>"),
      write("packed", "array<vec4<f32>>"),
    ],
    grid: (parameters) => [...foldGrid(Math.ceil(items(parameters) / THREADS)), 1],
    body,
  });
}
