// Copies what a layer's cache has already to where a step's keys and values are staged, so that the step's queries find
// all of it in one place.
//
//   cache    [ 0 ......... length | ... capacity ]
//                   |
//   staged   [ 0 ......... length | the step's rows come here ... ]
//
// One invocation a word of a key and of its value (slot_words.ts).

import { defineKernel, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { vectorArray } from "./load.ts";
import { SLOT_WORD_PARAMETERS, slotWords } from "./slot_words.ts";
import { EXTENT_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode stageSlots}. */
export interface StageSlotsSpec {
  /** Storage type of the cache. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4. */
  readonly headSize: number;
}

/**
 * For the KV heads [firstHead, firstHead + arenaHeads) of every sequence: keys and values of the slots below `length` of
 * its extent, which is at most `columns`, are copied to the same slots of its staging extent, up to that one's capacity.
 * `stagingExtents` has the extents of one layer, at index sequence * kvHeads + head. Evicted slots are copied as well.
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function stageSlots(spec: StageSlotsSpec): Kernel {
  const { dtype, headSize } = spec;
  const { words, main, grid } = slotWords(headSize);
  const body = `
${EXTENT_STRUCT}

${
    main(`let extent = extents[(params.layer * params.sequences + sequence) * params.kvHeads + head];
  let staged = stagingExtents[sequence * params.kvHeads + head];
  if (slot >= min(min(extent.length, params.columns), staged.capacity)) { return; }
  let origin = (extent.base + slot) * ${words}u + word;
  let destination = (staged.base + slot) * ${words}u + word;
  stagingKeys[destination] = keys[origin];
  stagingValues[destination] = values[origin];`)
  }`;
  return defineKernel({
    name: `stageSlots ${dtype} head ${headSize}`,
    f16: dtype === "f16",
    parameters: SLOT_WORD_PARAMETERS,
    bindings: [
      read("keys", vectorArray(dtype)),
      read("values", vectorArray(dtype)),
      write("stagingKeys", vectorArray(dtype)),
      write("stagingValues", vectorArray(dtype)),
      read("extents", "array<Extent>"),
      read("stagingExtents", "array<Extent>"),
    ],
    grid,
    body,
  });
}
