// Copies what a layer's cache has already to where a step's keys and values are staged, so that the step's queries find
// all of it in one place.
//
//   cache    [ 0 ......... length | ... capacity ]
//                   |
//   staged   [ 0 ......... length | the step's rows come here ... ]
//
// One invocation a word (four numbers) of a key and of its value. Slots lie in one flat index with those of all (sequence,
// head), `columns` for each: words of a slot first, so that neighbours copy neighbours.

import { defineKernel, foldGrid, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { vectorArray } from "./load.ts";
import { EXTENT_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode stageSlots}. */
export interface StageSlotsSpec {
  /** Storage type of the cache. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4. */
  readonly headSize: number;
}

const THREADS = 256;

/**
 * For the KV heads [firstHead, firstHead + arenaHeads) of every sequence: keys and values of the slots below `length` of
 * its extent, which is at most `columns`, are copied to the same slots of its staging extent, up to that one's capacity.
 * `stagingExtents` has the extents of one layer, at index sequence * kvHeads + head. Evicted slots are copied as well.
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function stageSlots(spec: StageSlotsSpec): Kernel {
  const { dtype, headSize } = spec;
  if (headSize % 4 !== 0 || !(headSize > 0)) {
    throw new RangeError(`headSize must be a positive multiple of 4: current value is ${headSize}`);
  }
  const words = headSize / 4;
  const body = `
${EXTENT_STRUCT}

@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let item = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let word = item % ${words}u;
  let slot = item / ${words}u % params.columns;
  let pair = item / ${words}u / params.columns;
  let sequence = pair / params.arenaHeads;
  if (sequence >= params.sequences) { return; }
  let head = params.firstHead + pair % params.arenaHeads;
  let extent = extents[(params.layer * params.sequences + sequence) * params.kvHeads + head];
  let staged = stagingExtents[sequence * params.kvHeads + head];
  if (slot >= min(min(extent.length, params.columns), staged.capacity)) { return; }
  let origin = (extent.base + slot) * ${words}u + word;
  let destination = (staged.base + slot) * ${words}u + word;
  stagingKeys[destination] = keys[origin];
  stagingValues[destination] = values[origin];
}
`;
  return defineKernel({
    name: `stageSlots ${dtype} head ${headSize}`,
    f16: dtype === "f16",
    parameters: {
      columns: "u32",
      layer: "u32",
      sequences: "u32",
      kvHeads: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
    },
    bindings: [
      read("keys", vectorArray(dtype)),
      read("values", vectorArray(dtype)),
      write("stagingKeys", vectorArray(dtype)),
      write("stagingValues", vectorArray(dtype)),
      read("extents", "array<Extent>"),
      read("stagingExtents", "array<Extent>"),
    ],
    grid: ({ columns, sequences, arenaHeads }) => [
      ...foldGrid(Math.ceil(columns * words * sequences * arenaHeads / THREADS)),
      1,
    ],
    body,
  });
}
