// The tokens a sampling pass looks at: the whole vocabulary, or a short list in workgroup memory of the few that can
// still matter, so that the passes of an exact selection do not each read the vocabulary again.
//
// The list comes from a bound that costs next to nothing: every thread knows the largest key among its own
// vocab / 256 tokens, and the k-th largest of these 256 is a bound that at least k tokens reach and seldom many more.

import { unroll } from "./kernel.ts";

/** Invocations of a sampling workgroup. */
export const SAMPLE_THREADS = 256;

/** Most tokens the list holds. When more reach the bound, passes go on over the whole vocabulary. */
export const LIST_CAPACITY = 2048;

/**
 * WGSL over a given `keyAt(id: u32) -> u32` (0 for `NONE`) and `SAMPLE_ORDER`; all invocations call in uniform control
 * flow:
 *
 * - `candidate(j, listCount)`: the id of candidate j, `NONE` past the end; a list of length 0 means the vocabulary;
 * - `rankedBound(key, rank, local)`: the rank-th largest (from 1 to 256) of the keys that the invocations give;
 * - `openList(local)`, `addToList(id)`, `closeList(local)`: lists ids in any order; closing gives the list's length, or
 *   0 when it did not fit.
 */
export const SAMPLE_CANDIDATES = `
var<workgroup> list: array<u32, ${LIST_CAPACITY}>;
var<workgroup> listed: atomic<u32>;
var<workgroup> threadKeys: array<u32, ${SAMPLE_THREADS}>;
var<workgroup> sharedCount: u32;

fn candidateCount(listCount: u32) -> u32 { return select(listCount, params.vocab, listCount == 0u); }

fn candidate(j: u32, listCount: u32) -> u32 {
  if (j >= candidateCount(listCount)) { return NONE; }
  if (listCount == 0u) { return j; }
  return list[j];
}

fn rankedBound(key: u32, rank: u32, local: u32) -> u32 {
  threadKeys[local] = key;
  workgroupBarrier();
  var above = 0u;
  for (var first = 0u; first < ${SAMPLE_THREADS}u; first += 8u) {
    ${
  unroll(8, (i) =>
    `let key${i} = threadKeys[first + ${i}u];
    above += select(0u, 1u, key${i} > key || (key${i} == key && first + ${i}u < local));`)
}
  }
  if (above + 1u == rank) { sharedCount = key; }
  return workgroupUniformLoad(&sharedCount);
}

fn openList(local: u32) {
  if (local == 0u) { atomicStore(&listed, 0u); }
  workgroupBarrier();
}

fn addToList(id: u32) {
  let slot = atomicAdd(&listed, 1u);
  if (slot < ${LIST_CAPACITY}u) { list[slot] = id; }
}

fn closeList(local: u32) -> u32 {
  workgroupBarrier();
  if (local == 0u) {
    let length = atomicLoad(&listed);
    sharedCount = select(length, 0u, length > ${LIST_CAPACITY}u);
  }
  return workgroupUniformLoad(&sharedCount);
}
`;

/**
 * WGSL loop over the candidates, in which each invocation takes every 256th. `unrolled` keys are fetched before the
 * first is used, which hides most of the memory's latency. `body(id, key)` gets the names of two u32 values.
 */
export function eachCandidate(
  listCount: string,
  unrolled: number,
  body: (id: string, key: string) => string,
): string {
  return `for (var first = local; first < candidateCount(${listCount}); first += ${
    SAMPLE_THREADS * unrolled
  }u) {
${
    unroll(unrolled, (i) =>
      `let id${i} = candidate(first + ${SAMPLE_THREADS * i}u, ${listCount});
let key${i} = keyAt(id${i});`)
  }
${unroll(unrolled, (i) => `if (key${i} != 0u) {\n${body(`id${i}`, `key${i}`)}\n}`)}
}`;
}
