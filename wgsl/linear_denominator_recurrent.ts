// The denominator of linear attention for few rows: each query times the sum of the keys so far.
//
//   z_t = z_(t-1) + k_t      den_t = q_t . z_t
//
// A workgroup owns one KV head of one sequence, an invocation one word (four numbers) of it; the grid counts rows, and the
// workgroup of a sequence's first row goes through all of them (as in linear_recurrent.ts).

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { checkLinearSizes, fourArray, loadFour } from "./linear_decay.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";
import { workgroupThreads } from "./threads.ts";

/** Compiled-in choices of {@linkcode linearDenominatorRecurrent}. */
export interface LinearDenominatorRecurrentSpec {
  /** Components of a head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Query heads that share a KV head. */
  readonly groupSize: number;
  /** Whether offsets and strides of q and k are multiples of 4. */
  readonly aligned: boolean;
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
}

/**
 * Writes `out` [rows, heads] and moves `state` [sequences][kvHeads][keySize] on, except of sequences that are done. Bindings
 * `q`, `k` (columns of rows), `rowTable`, `states`, `state`, `out`.
 *
 * @throws {RangeError} when the size does not fit.
 */
export function linearDenominatorRecurrent(spec: LinearDenominatorRecurrentSpec): Kernel {
  const { keySize, groupSize, aligned, subgroups } = spec;
  checkLinearSizes({ keySize });
  const words = keySize / 4;
  const threads = workgroupThreads(words, 4);
  return defineKernel({
    name: `linearDenominatorRecurrent ${keySize} group ${groupSize}${aligned ? "" : " unaligned"}${
      subgroups ? " subgroups" : ""
    }`,
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
    },
    bindings: [
      read("q", fourArray(aligned)),
      read("k", fourArray(aligned)),
      read("rowTable", "array<Row>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
      write("out", "array<f32>"),
    ],
    grid: ({ rows, kvHeads }) => [rows, kvHeads, 1],
    body: `
${ROW_STRUCT}
${STATE_STRUCT}
${["q", "k"].map((name) => loadFour(name, aligned)).join("")}
${workgroupReduce({ name: "total", size: threads, operation: "add", subgroups })}
@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}
) {
  let sequence = rowTable[group.x].sequence;
  if (group.x > 0u && rowTable[max(group.x, 1u) - 1u].sequence == sequence) { return; }
  let head = group.y;
  let there = local < ${words}u;
  let word = min(local, ${words - 1}u);
  let own = (sequence * params.kvHeads + head) * ${words}u + word;
  var sum = state[own];
  for (var row = group.x; row < params.rows; row++) {
    if (rowTable[row].sequence != sequence) { break; }
    sum += kFour(row * params.kStride + params.kOffset + head * ${keySize}u + word * 4u);
    for (var g = 0u; g < ${groupSize}u; g++) {
      let queryHead = head * ${groupSize}u + g;
      let query = qFour(row * params.qStride + params.qOffset + queryHead * ${keySize}u + word * 4u);
      let product = total(select(0.0, dot(query, sum), there), ${reduceArguments(subgroups)});
      if (local == 0u) { out[row * params.heads + queryHead] = product; }
    }
  }
  if (there && states[sequence].done == 0u) { state[own] = sum; }
}
`,
  });
}
