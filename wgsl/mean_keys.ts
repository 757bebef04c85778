// The mean direction of a step's keys: the mean of the keys at length 1.
//
// A workgroup owns a (sequence, head) and goes over its rows in tiles of 256. First each invocation measures one key; then
// invocation (word, part) adds that word of the keys part, part + parts, ... of the tile. In the end the parts are added
// in order.

import { defineKernel, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { loadVector, vectorArray } from "./load.ts";
import { EXTENT_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode meanKeys}. */
export interface MeanKeysSpec {
  /** Storage type of the keys. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
}

const THREADS = 256;

/**
 * `means[(sequence * kvHeads + head) * headSize ..]`: the mean of key / length of key (0 for a key of length 0) over the
 * `count` rows of a sequence's `Selection`, whose keys stand from slot `start` of the extent on (KeyDiff,
 * arXiv:2504.15364); 0 for a sequence without rows. For the KV heads [firstHead, firstHead + arenaHeads).
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function meanKeys({ dtype, headSize }: MeanKeysSpec): Kernel {
  if (!(headSize >= 4 && headSize <= 256 && headSize % 4 === 0)) {
    throw new RangeError(`headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`);
  }
  const words = headSize / 4;
  const parts = Math.floor(THREADS / words);
  return defineKernel({
    name: `meanKeys ${dtype} head ${headSize}`,
    f16: dtype === "f16",
    parameters: {
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
    },
    bindings: [
      read("keys", vectorArray(dtype)),
      read("extents", "array<Extent>"),
      read("selections", "array<Selection>"),
      write("means", "array<vec4<f32>>"),
    ],
    grid: ({ arenaHeads, sequences }) => [arenaHeads, sequences, 1],
    body: `
${EXTENT_STRUCT}
${SELECTION_STRUCT}
var<workgroup> scales: array<f32, ${THREADS}>;
var<workgroup> sums: array<vec4<f32>, ${words * parts}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.y];
  let head = params.firstHead + group.x;
  let pair = group.y * params.kvHeads + head;
  let extent = extents[params.layer * params.sequences * params.kvHeads + pair];
  let first = extent.base + extent.start;
  let word = local % ${words}u;
  let part = local / ${words}u;
  var sum = vec4<f32>(0.0);
  for (var tile = 0u; tile < selection.count; tile += ${THREADS}u) {
    let rows = min(${THREADS}u, selection.count - tile);
    if (local < rows) {
      var square = 0.0;
      for (var w = 0u; w < ${words}u; w++) {
        let key = ${loadVector(dtype, "keys", `(first + tile + local) * ${words}u + w`)};
        square += dot(key, key);
      }
      scales[local] = select(0.0, 1.0 / sqrt(square), square > 0.0);
    }
    workgroupBarrier();
    if (part < ${parts}u) {
      for (var row = part; row < rows; row += ${parts}u) {
        sum += scales[row] * ${loadVector(dtype, "keys", `(first + tile + row) * ${words}u + word`)};
      }
    }
    workgroupBarrier();
  }
  if (part < ${parts}u) { sums[local] = sum; }
  workgroupBarrier();
  if (part > 0u) { return; }
  for (var i = 1u; i < ${parts}u; i++) { sum += sums[i * ${words}u + word]; }
  means[pair * ${words}u + word] = sum / f32(max(selection.count, 1u));
}
`,
  });
}
