// What the kernels share that copy keys and values slot by slot: one invocation a word (four numbers) of a key and of its
// value, in one flat index.
//
//   index    | word 0, word 1, ... of slot 0 | slot 1 | ... columns | next KV head | ... arenaHeads | next sequence ...
//
// Words of a slot come first, so that neighbours copy neighbours.

import { foldGrid, type Grid, type Parameters, type ParameterType } from "./kernel.ts";

/** Invocations of a workgroup that copies. */
const THREADS = 256;

/** Parameters of such a kernel. */
export const SLOT_WORD_PARAMETERS: Readonly<Record<string, ParameterType>> = {
  columns: "u32",
  layer: "u32",
  sequences: "u32",
  kvHeads: "u32",
  firstHead: "u32",
  arenaHeads: "u32",
};

/** A head of `headSize` numbers as words of a slot. */
export interface SlotWords {
  /** Words of a key. */
  readonly words: number;
  /** WGSL of `main`, in which `word`, `slot`, `sequence` and `head` say what its `body` is to copy. */
  main(body: string): string;
  /** Its grid. */
  readonly grid: (parameters: Parameters) => Grid;
}

/**
 * Words of heads of a size.
 *
 * @throws {RangeError} when the head size does not come in words.
 */
export function slotWords(headSize: number): SlotWords {
  if (headSize % 4 !== 0 || !(headSize > 0)) {
    throw new RangeError(`headSize must be a positive multiple of 4: current value is ${headSize}`);
  }
  const words = headSize / 4;
  return {
    words,
    main: (body) =>
      `@compute @workgroup_size(${THREADS})
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
  ${body}
}
`,
    grid: ({ columns, sequences, arenaHeads }) => [
      ...foldGrid(Math.ceil(columns * words * sequences * arenaHeads / THREADS)),
      1,
    ],
  };
}
