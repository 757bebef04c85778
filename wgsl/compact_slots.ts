// Copies the keys and values that were selected from where they are staged into the cache, side by side.
//
//   staged   [ earlier ... start | 0  1  2  3  4  5  6 ... ]      rows j = map[0], map[1], ... of the sequence
//                                     |     |  |
//   cache    [ earlier ... start | 0  1  2 ... length ]
//
// One invocation a word (four numbers) of a key and of its value. A head's rows lie in one flat index with those of all
// (sequence, head), `columns` for each: words of a row first, so that neighbours copy neighbours.

import { defineKernel, foldGrid, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { vectorArray } from "./load.ts";
import { EXTENT_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode compactSlots}. */
export interface CompactSlotsSpec {
  /** Storage type of the cache. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4. */
  readonly headSize: number;
}

const THREADS = 256;

/**
 * For the KV heads [firstHead, firstHead + arenaHeads) of every sequence: its extent's slot `start + i` gets the key and
 * the value of the staged slot `start + map[head * stride + first + i]`, for every i below `length - start`, which is at
 * most `columns`; so nothing is written for a sequence that is done, nor beyond the capacity. `extents` has the layer's
 * cache, `stagingExtents` what is staged of this layer alone, at index sequence * kvHeads + head.
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function compactSlots(spec: CompactSlotsSpec): Kernel {
  const { dtype, headSize } = spec;
  if (headSize % 4 !== 0 || !(headSize > 0)) {
    throw new RangeError(`headSize must be a positive multiple of 4: current value is ${headSize}`);
  }
  const words = headSize / 4;
  const body = `
${EXTENT_STRUCT}
${SELECTION_STRUCT}

@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let item = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let word = item % ${words}u;
  let i = item / ${words}u % params.columns;
  let pair = item / ${words}u / params.columns;
  let sequence = pair / params.arenaHeads;
  if (sequence >= params.sequences) { return; }
  let head = params.firstHead + pair % params.arenaHeads;
  let extent = extents[(params.layer * params.sequences + sequence) * params.kvHeads + head];
  if (i >= min(extent.length - extent.start, params.columns)) { return; }
  let staged = stagingExtents[sequence * params.kvHeads + head];
  let row = map[head * params.stride + selections[sequence].first + i];
  let origin = (staged.base + staged.start + row) * ${words}u + word;
  let destination = (extent.base + extent.start + i) * ${words}u + word;
  keys[destination] = stagingKeys[origin];
  values[destination] = stagingValues[origin];
}
`;
  return defineKernel({
    name: `compactSlots ${dtype} head ${headSize}`,
    f16: dtype === "f16",
    parameters: {
      columns: "u32",
      layer: "u32",
      sequences: "u32",
      kvHeads: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      stride: "u32",
    },
    bindings: [
      read("map", "array<u32>"),
      read("selections", "array<Selection>"),
      read("stagingExtents", "array<Extent>"),
      read("extents", "array<Extent>"),
      read("stagingKeys", vectorArray(dtype)),
      read("stagingValues", vectorArray(dtype)),
      write("keys", vectorArray(dtype)),
      write("values", vectorArray(dtype)),
    ],
    grid: ({ columns, sequences, arenaHeads }) => [
      ...foldGrid(Math.ceil(columns * words * sequences * arenaHeads / THREADS)),
      1,
    ],
    body,
  });
}
