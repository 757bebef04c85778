// Scores that know nothing: a hash of the position, for measuring what a policy's scores are worth.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { ROW_STRUCT, SELECTION_STRUCT } from "./tables.ts";

const THREADS = 256;

/**
 * `scores[head * stride + first + j]`, a number from 0 to below 1, for the first `columns` of the `count` rows of each
 * sequence's `Selection`: `mix(mix(mix(mix(seed) ^ layer) ^ head) ^ position) >> 8` of 2^24, where `mix` is the finalizer
 * of MurmurHash3 on x + 0x9e3779b9. It depends on nothing else, so that a prompt is cut the same in any batch.
 */
export function randomScores(): Kernel {
  return defineKernel({
    name: "randomScores",
    parameters: {
      columns: "u32",
      kvHeads: "u32",
      sequences: "u32",
      stride: "u32",
      layer: "u32",
      seed: "u32",
    },
    bindings: [
      read("rowTable", "array<Row>"),
      read("selections", "array<Selection>"),
      write("scores", "array<f32>"),
    ],
    grid: ({ columns, kvHeads, sequences }) => [Math.ceil(columns / THREADS), kvHeads, sequences],
    body: `
${ROW_STRUCT}
${SELECTION_STRUCT}
fn mix(x: u32) -> u32 {
  var h = x + 0x9e3779b9u;
  h = (h ^ (h >> 16u)) * 0x85ebca6bu;
  h = (h ^ (h >> 13u)) * 0xc2b2ae35u;
  return h ^ (h >> 16u);
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.z];
  let j = group.x * ${THREADS}u + local;
  if (j >= selection.count) { return; }
  let row = selection.first + j;
  let hash = mix(mix(mix(mix(params.seed) ^ params.layer) ^ group.y) ^ rowTable[row].position);
  scores[group.y * params.stride + row] = f32(hash >> 8u) / 16777216.0;
}
`,
  });
}
