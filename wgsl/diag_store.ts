// Keeps the newest block of every sequence: what block-diagonal attention needs of a sequence between steps.
//
// State of a sequence:  [ keys: kvHeads x block x headSize | values: the same | tags: block x 4 ]
//
// A token stands in slot position % block, and the slot's tag says which one it is; a slot with a token of another block
// is empty. So nothing is cleared when a block begins, and gaps between positions do no harm.
//
// One invocation copies four numbers; an item of a row is a word of its key, of its value, or the tag:
//
//   row r:   | k words of all heads | v words of all heads | tag |

import { defineKernel, foldGrid, type Kernel, type Parameters, read, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode diagStore}. */
export interface DiagStoreSpec {
  /** Numbers in a head, a multiple of 4. */
  readonly headSize: number;
  /** Positions of a block. */
  readonly block: number;
  /** Whether sequences have many rows in a step (prefill) or one (decode; then there is no binding `spans`). */
  readonly many: boolean;
  /** Whether rows of the token `padToken` are left out. */
  readonly padded: boolean;
}

const THREADS = 256;

/** Numbers that block-diagonal attention keeps of a sequence. */
export function diagStateWords(
  sizes: { readonly kvHeads: number; readonly headSize: number; readonly block: number },
): number {
  return 2 * sizes.kvHeads * sizes.block * sizes.headSize + 4 * sizes.block;
}

/**
 * Copies keys and values of the rows that are in the same block of positions as their sequence's last row into `state`
 * [sequences, {@linkcode diagStateWords}]. Nothing is stored for sequences that are done. A row's keys stand at
 * `k[row * kStride + kOffset]`, its values at `v[row * vStride + vOffset]`.
 */
export function diagStore(spec: DiagStoreSpec): Kernel {
  const { headSize, block, many, padded } = spec;
  const words = headSize / 4;
  const body = `
${ROW_STRUCT}
${STATE_STRUCT}
${POSITION_TAG}
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let headWords = params.kvHeads * ${words}u;
  let items = 2u * headWords + 1u;
  let index = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let rowIndex = index / items;
  if (rowIndex >= params.rows) { return; }
  let row = rowTable[rowIndex];
  if (states[row.sequence].done != 0u${padded ? " || row.token == params.padToken" : ""}) { return; }
  ${
    many
      ? `let last = rowTable[spans[row.sequence].x + spans[row.sequence].y - 1u].position;
  if (row.position / ${block}u != last / ${block}u) { return; }`
      : ""
  }
  let item = index % items;
  let slot = row.position % ${block}u;
  let part = headWords * ${block}u;
  let base = row.sequence * (2u * part + ${block}u);
  if (item == items - 1u) {
    state[base + 2u * part + slot] = positionTag(row.position);
    return;
  }
  let isValue = item >= headWords;
  let word = select(item, item - headWords, isValue);
  let place = base + (word / ${words}u * ${block}u + slot) * ${words}u + word % ${words}u;
  if (isValue) {
    state[place + part] = v[(rowIndex * params.vStride + params.vOffset) / 4u + word];
  } else {
    state[place] = k[(rowIndex * params.kStride + params.kOffset) / 4u + word];
  }
}
`;
  const items = ({ rows, kvHeads }: Parameters): number => rows * (2 * kvHeads * words + 1);
  return defineKernel({
    name: `diagStore head ${headSize} block ${block}${many ? " many" : ""}${padded ? " padded" : ""}`,
    parameters: {
      rows: "u32",
      kvHeads: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      padToken: "u32",
    },
    bindings: [
      read("k", "array<vec4<f32>>"),
      read("v", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      ...(many ? [read("spans", "array<vec2<u32>>")] : []),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
    ],
    grid: (parameters) => [...foldGrid(Math.ceil(items(parameters) / THREADS)), 1],
    body,
  });
}
