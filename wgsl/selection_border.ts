// Exact selection of the best scores by radix: which key the last wanted one has, and how many of that key are wanted.
// A score becomes a 32-bit key that is looked at 8 bits a pass. A pass counts the scores that have the bits found so far
// in 256 bins, and the bin in which the wanted number is reached, from the highest down, gives the next 8 bits.
// Counts are integers, so that the result is the same in whatever order they are added.
//
// Threads: each counts some of the scores, then owns one bin, and sees from sums of 16 bins whether the border lies in
// it. Scores that are probabilities crowd in few bins, so each bin has 4 copies that neighbouring threads take in turns.

import { unroll } from "./kernel.ts";

/** Invocations of a workgroup that selects. */
export const SELECTION_THREADS = 256;

const COPIES = 4;
/** Bins summed by one thread. */
const GROUP = 16;

/**
 * WGSL: `scoreKey(f32) -> u32` grows with its argument; -0 has the key of +0, NaN has key 0, below all others, and
 * `NO_KEY` is above all. Scores of the same key are equal.
 */
export const SCORE_KEY = `
const NO_KEY = 0xffffffffu;

fn scoreKey(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let magnitude = bits & 0x7fffffffu;
  let negative = bits > 0x80000000u;
  return select(select(0x80000000u | magnitude, ~bits, negative), 0u, magnitude > 0x7f800000u);
}
`;

/** What {@linkcode selectionBorder} generates. */
export interface SelectionBorder {
  /** Further parameters of the function, as WGSL. Default: none. */
  readonly parameters?: string;
  /**
   * WGSL that calls `tally(key, weight, level, local)` for every score there is, all invocations together each once;
   * `weight` is how many scores of that key are meant.
   */
  readonly tallyAll: string;
}

/**
 * WGSL over {@linkcode SCORE_KEY}: `fn border(wanted: u32, local: u32, PARAMETERS) -> Border` for `wanted` from 1 to the
 * number of scores; all invocations call it in uniform control flow, any number of times, and all get the same. Taken
 * are the scores with `(key & mask) > border.key`, and `need` of the `equal` ones with `(key & mask) == border.key`;
 * `mask` lacks low bits only when all of those are taken, and then `key` lacks them too.
 */
export function selectionBorder({ parameters = "", tallyAll }: SelectionBorder): string {
  return `
struct Border { key: u32, mask: u32, need: u32, equal: u32 }
struct Level { prefix: u32, mask: u32, shift: u32 }

var<workgroup> bins: array<atomic<u32>, ${SELECTION_THREADS * COPIES}>;
var<workgroup> binTotals: array<u32, ${SELECTION_THREADS}>;
var<workgroup> groupTotals: array<u32, ${SELECTION_THREADS / GROUP}>;
var<workgroup> decided: vec3<u32>;

fn tally(key: u32, weight: u32, level: Level, local: u32) {
  if ((key & level.mask) == level.prefix) {
    atomicAdd(&bins[((key >> level.shift) & 255u) * ${COPIES}u + (local & ${COPIES - 1}u)], weight);
  }
}

fn border(wanted: u32, local: u32${parameters ? `, ${parameters}` : ""}) -> Border {
  var found = Border(0u, 0u, wanted, 0u);
  for (var shift = 32u; shift > 0u;) {
    shift -= 8u;
    let level = Level(found.key, found.mask, shift);
    ${unroll(COPIES, (i) => `atomicStore(&bins[local + ${SELECTION_THREADS * i}u], 0u);`)}
    workgroupBarrier();
    ${tallyAll}
    workgroupBarrier();
    var own = 0u;
    ${unroll(COPIES, (i) => `own += atomicLoad(&bins[local * ${COPIES}u + ${i}u]);`)}
    binTotals[local] = own;
    workgroupBarrier();
    if (local < ${SELECTION_THREADS / GROUP}u) {
      var sum = 0u;
      for (var i = 0u; i < ${GROUP}u; i++) { sum += binTotals[local * ${GROUP}u + i]; }
      groupTotals[local] = sum;
    }
    workgroupBarrier();
    var above = 0u;
    for (var i = local / ${GROUP}u + 1u; i < ${SELECTION_THREADS / GROUP}u; i++) { above += groupTotals[i]; }
    for (var i = local + 1u; i % ${GROUP}u != 0u; i++) { above += binTotals[i]; }
    if (above < found.need && found.need - above <= own) {
      decided = vec3<u32>(local, found.need - above, own);
    }
    let bin = workgroupUniformLoad(&decided);
    found.key |= bin.x << shift;
    found.mask |= 255u << shift;
    found.need = bin.y;
    found.equal = bin.z;
    if (found.need == found.equal) { break; }
  }
  return found;
}
`;
}

/**
 * WGSL loop over the columns from `begin` to before `end` (names of u32 values) of the scores from `base` on, in which
 * each invocation takes every 256th. Four are fetched before the first is used, which hides most of the memory's
 * latency. `body(key)` gets the name of a u32 value.
 */
export function eachKey(base: string, begin: string, end: string, body: (key: string) => string): string {
  const steps = 4;
  return `for (var at = ${begin} + local; at < ${end}; at += ${SELECTION_THREADS * steps}u) {
${
    unroll(steps, (i) =>
      `let key${i} = scoreKey(scores[${base} + min(at + ${SELECTION_THREADS * i}u, ${end} - 1u)]);`)
  }
${unroll(steps, (i) => `if (at + ${SELECTION_THREADS * i}u < ${end}) { ${body(`key${i}`)} }`)}
}`;
}
