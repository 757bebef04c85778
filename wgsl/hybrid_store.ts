// Brings the windows in the states up to the last row of a prefill step.
//
// An invocation has one vector of an entry of a ring (see hybrid_layout.ts); all of them lie in one flat index:
//
//   sequence 0: | KV head 0: slot 0: tag, key, features, value | slot 1 ... | KV head 1 ... |   sequence 1: ...
//
// A slot belongs to one position of the window that ends with the last row. When the step has a row of it, the entry is
// overwritten; when the state has it from before, it stays; otherwise the tag is cleared, because the token that stands
// there has left the window and is part of the sums by now.

import { checkHybrid, hybridLayout, type HybridSizes } from "./hybrid_layout.ts";
import { defineKernel, foldGrid, type Kernel, type Parameters, read, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { ROW_SEARCH } from "./row_search.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

const THREADS = 256;

/**
 * Writes the rings of `state` from `packed` (of {@linkcode hybridPack}), after {@linkcode hybridScan}. Nothing is written of
 * sequences that are done or have no row in the step.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function hybridStore(sizes: HybridSizes): Kernel {
  checkHybrid(sizes);
  const { window } = sizes;
  const { entry, sums, head } = hybridLayout(sizes);
  const body = `
${ROW_STRUCT}
${STATE_STRUCT}
${POSITION_TAG}
${ROW_SEARCH}
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let index = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let item = index % ${entry}u;
  let slot = index / ${entry}u % ${window}u;
  let headIndex = index / ${entry * window}u;
  let sequence = headIndex / params.kvHeads;
  if (sequence >= params.sequences) { return; }
  let span = spans[sequence];
  if (span.y == 0u || states[sequence].done != 0u) { return; }
  let place = headIndex * ${head}u + ${sums}u + slot * ${entry}u;
  let last = rowTable[span.x + span.y - 1u].position;
  // How far before the last row the slot's position is.
  let age = (last % ${window}u + ${window}u - slot) % ${window}u;
  if (age <= last) {
    let position = last - age;
    if (position >= rowTable[span.x].position) {
      let row = rowsBefore(span, position);
      if (rowTable[span.x + row].position == position) {
        let source = params.sequences * ${window}u + span.x + row;
        state[place + item] = packed[(source * params.kvHeads + headIndex % params.kvHeads) * ${entry}u + item];
        return;
      }
    } else if (item == 0u && hasTag(state[place]) && taggedPosition(state[place]) == position) {
      return;
    }
  }
  if (item == 0u) { state[place] = vec4<f32>(0.0); }
}
`;
  const items = ({ sequences, kvHeads }: Parameters): number => sequences * kvHeads * window * entry;
  return defineKernel({
    name: `hybridStore head ${sizes.headSize} features ${sizes.featureSize} window ${window}`,
    parameters: { sequences: "u32", kvHeads: "u32" },
    bindings: [
      read("packed", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      read("spans", "array<vec2<u32>>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
    ],
    grid: (parameters) => [...foldGrid(Math.ceil(items(parameters) / THREADS)), 1],
    body,
  });
}
