// Copies the keys and values that were selected from where they are staged into the cache, side by side.
//
//   staged   [ earlier ... start | 0  1  2  3  4  5  6 ... ]      rows j = map[0], map[1], ... of the sequence
//                                     |     |  |
//   cache    [ earlier ... start | 0  1  2 ... length ]
//
// One invocation a word of a key and of its value (slot_words.ts).

import { defineKernel, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { vectorArray } from "./load.ts";
import { SLOT_WORD_PARAMETERS, slotWords } from "./slot_words.ts";
import { EXTENT_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode compactSlots}. */
export interface CompactSlotsSpec {
  /** Storage type of the cache. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4. */
  readonly headSize: number;
}

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
  const { words, main, grid } = slotWords(headSize);
  const body = `
${EXTENT_STRUCT}
${SELECTION_STRUCT}

${
    main(`let extent = extents[(params.layer * params.sequences + sequence) * params.kvHeads + head];
  if (slot >= min(extent.length - extent.start, params.columns)) { return; }
  let staged = stagingExtents[sequence * params.kvHeads + head];
  let row = map[head * params.stride + selections[sequence].first + slot];
  let origin = (staged.base + staged.start + row) * ${words}u + word;
  let destination = (extent.base + extent.start + slot) * ${words}u + word;
  keys[destination] = stagingKeys[origin];
  values[destination] = stagingValues[origin];`)
  }`;
  return defineKernel({
    name: `compactSlots ${dtype} head ${headSize}`,
    f16: dtype === "f16",
    parameters: { ...SLOT_WORD_PARAMETERS, stride: "u32" },
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
    grid,
    body,
  });
}
