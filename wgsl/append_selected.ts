// Makes room in a layer's KV cache for the rows of a step that were selected, as many as each KV head keeps.
//
//   extent   [ 0 ......... start | the selected rows ......... length | ... capacity ]
//
// One invocation a (sequence, head). Where heads keep different numbers of rows, one invocation a sequence, which deals the
// sequence's slots out again by what each head keeps, as long as there is nothing in them:
//
//   as the host wrote it   | head 0: capacity | head 1: capacity   | head 2: capacity |
//   dealt out              | keeps .. | room | keeps ....... | room | keeps . | room |

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { EXTENT_STRUCT, SELECTION_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode appendSelected}. */
export interface AppendSelectedSpec {
  /** Whether every (sequence, head) has its own number of rows to keep. */
  readonly counted: boolean;
  /**
   * Whether the slots of an empty sequence are dealt out by what its heads keep: each gets as much room besides as all
   * would have had. The sequence's extents must stand side by side, in the arena and in the tables by slot.
   */
  readonly ragged: boolean;
}

const THREADS = 64;

/**
 * For every (sequence, KV head) of a layer: `start = length` and `length = min(length + kept rows, capacity)`, where
 * `min(keep, context)` of the `context = count - window` first rows are kept and all of the others. With `counted`,
 * `keeps[sequence * keepHeads + head]` stands for the selection's `keep`; `keepHeads` is the number of KV heads, or 1 where
 * all of them keep as many. A sequence that is done keeps no row.
 *
 * With `ragged`, the heads of a sequence whose extents are all empty first get slots anew, out of those that they have
 * together: in order from `base` and `positions` of head 0 on, each the rows that it keeps and as many more as there are
 * in the capacity of head 0 beyond the rows that the selection keeps. Their counts may at most be the selection's on the
 * average; a head that finds no room any more gets what is left.
 */
export function appendSelected(spec: AppendSelectedSpec): Kernel {
  const { counted, ragged } = spec;
  const body = `
${EXTENT_STRUCT}
${SELECTION_STRUCT}
${STATE_STRUCT}

fn keptRows(sequence: u32, keep: u32) -> u32 {
  let count = selections[sequence].count;
  let window = min(selections[sequence].window, count);
  return min(keep, count - window) + window;
}

fn keepOf(sequence: u32, head: u32) -> u32 {
  return ${
    counted
      ? "keeps[sequence * params.keepHeads + min(head, params.keepHeads - 1u)]"
      : "selections[sequence].keep"
  };
}

fn append(sequence: u32, head: u32) {
  let i = (params.layer * params.sequences + sequence) * params.kvHeads + head;
  let start = extents[i].length;
  let kept = select(keptRows(sequence, keepOf(sequence, head)), 0u, states[sequence].done != 0u);
  extents[i].start = start;
  extents[i].length = start + min(kept, extents[i].capacity - min(start, extents[i].capacity));
}
${
    ragged
      ? `
fn dealOut(sequence: u32) {
  let owner = (params.layer * params.sequences + sequence) * params.kvHeads;
  for (var head = 0u; head < params.kvHeads; head++) {
    if (extents[owner + head].length != 0u) { return; }
  }
  let base = extents[owner].base;
  let positions = extents[owner].positions;
  let capacity = extents[owner].capacity;
  let all = capacity * params.kvHeads;
  let room = capacity - min(capacity, keptRows(sequence, selections[sequence].keep));
  var first = 0u;
  for (var head = 0u; head < params.kvHeads; head++) {
    let own = min(keptRows(sequence, keepOf(sequence, head)) + room, all - first);
    extents[owner + head].base = base + first;
    extents[owner + head].positions = positions + first;
    extents[owner + head].capacity = own;
    first += own;
  }
}
`
      : ""
  }
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let i = (group.x + group.y * groups.x) * ${THREADS}u + local;
  ${
    ragged
      ? `if (i >= params.sequences) { return; }
  if (states[i].done == 0u) { dealOut(i); }
  for (var head = 0u; head < params.kvHeads; head++) { append(i, head); }`
      : `if (i >= params.sequences * params.kvHeads) { return; }
  append(i / params.kvHeads, i % params.kvHeads);`
  }
}
`;
  return defineKernel({
    name: `appendSelected${counted ? " counted" : ""}${ragged ? " ragged" : ""}`,
    parameters: {
      layer: "u32",
      sequences: "u32",
      kvHeads: "u32",
      ...(counted ? { keepHeads: "u32" } as const : {}),
    },
    bindings: [
      write("extents", "array<Extent>"),
      read("selections", "array<Selection>"),
      read("states", "array<SequenceState>"),
      ...(counted ? [read("keeps", "array<u32>")] : []),
    ],
    grid: ({ sequences, kvHeads }) => [
      ...foldGrid(Math.ceil(sequences * (ragged ? 1 : kvHeads) / THREADS)),
      1,
    ],
    body,
  });
}
