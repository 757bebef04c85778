// Exact top-k and top-p by radix selection: the order of a token is the 56-bit number (key, place), looked at 8 bits a
// pass. A pass adds the weight of every token that has the bits found so far to one of 256 bins, and the bin in which
// the wanted weight is reached, from the largest down, gives the next 8 bits. Weights are integers, so that the
// result is the same in whatever order they are added: 1 for top-k, for top-p the probability relative to the
// largest one in units of 2^-32. Sums have 64 bits.
//
// Threads: each takes every 256th candidate, then one bin, then 16 threads sum 16 bins each and thread 0 walks down.
// Real logits crowd in few bins, so each bin has 4 copies that neighbouring threads take in turns.

import { eachCandidate, SAMPLE_THREADS } from "./sample_candidates.ts";
import { unroll } from "./kernel.ts";

const COPIES = 4;
/** Bins summed by one thread. */
const GROUP = 16;

/**
 * WGSL over `SAMPLE_CANDIDATES` and a given `weightOf(key: u32, byMass: bool) -> u32`, which is 1 unless `byMass`;
 * all invocations call in uniform control flow. A threshold is a (key, place) pair; tokens that reach it are kept.
 *
 * - `massNeeded(share, threshold, ...)`: the weight, rounded up and at least 1, that is `share` (below 1) of what the
 *   tokens over a threshold weigh together; its third word is a weight that every token of the smallest set of this
 *   weight has: 0 when none can be told;
 * - `narrow(byMass, wanted, threshold, ...)`: the threshold, no lower than the given one, of the smallest set of first
 *   tokens whose weight reaches `wanted`, 1 to the weight of all.
 */
export const SAMPLE_THRESHOLD = `
var<workgroup> bins: array<atomic<u32>, ${SAMPLE_THREADS * COPIES}>;
var<workgroup> carries: array<atomic<u32>, ${SAMPLE_THREADS}>;
var<workgroup> groupSums: array<vec2<u32>, ${SAMPLE_THREADS / GROUP}>;
var<workgroup> decided: vec4<u32>;

// 64-bit numbers are (low, high).
fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = a.x + b.x;
  return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn subtract64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }

fn multiply64(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return vec2<u32>((other << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u));
}

fn kept(order: vec2<u32>, threshold: vec2<u32>) -> bool { return !precedes(threshold, order); }

fn massNeeded(share: f32, threshold: vec2<u32>, listCount: u32, local: u32) -> vec3<u32> {
  if (local == 0u) {
    atomicStore(&bins[0], 0u);
    atomicStore(&bins[1], 0u);
  }
  var own = vec2<u32>(0u, 0u);
  ${
  eachCandidate("listCount", 4, (id, key) =>
    `if (kept(vec2<u32>(${key}, placeOf(${id})), threshold)) {
    own = add64(own, vec2<u32>(weightOf(${key}, true), 0u));
  }`)
}
  workgroupBarrier();
  let before = atomicAdd(&bins[0], own.x);
  atomicAdd(&bins[1], own.y + select(0u, 1u, before > ~own.x));
  workgroupBarrier();
  if (local == 0u) {
    let total = vec2<u32>(atomicLoad(&bins[0]), atomicLoad(&bins[1]));
    let factor = u32(share * 4294967296.0);
    let low = multiply64(total.x, factor);
    var need = add64(multiply64(total.y, factor), vec2<u32>(low.y, 0u));
    if (low.x != 0u) { need = add64(need, vec2<u32>(1u, 0u)); }
    if (all(need == vec2<u32>(0u, 0u))) { need.x = 1u; }
    // Tokens lighter than the mean share of what may be left out weigh less than that together.
    let rest = subtract64(total, need);
    let mean = (f32(rest.y) * 4294967296.0 + f32(rest.x)) / f32(params.vocab);
    decided = vec4<u32>(need, u32(mean * 0.999), 0u);
  }
  return workgroupUniformLoad(&decided).xyz;
}

fn narrow(byMass: bool, wanted: vec2<u32>, threshold: vec2<u32>, listCount: u32, local: u32) -> vec2<u32> {
  var need = wanted;
  var prefix = vec2<u32>(0u, 0u);
  var mask = vec2<u32>(0u, 0u);
  // Four passes over the key's bits, then, among equal keys, three over the place's 24.
  for (var level = 0u; level < 7u; level++) {
    let inKey = level < 4u;
    let shift = select(48u, 24u, inKey) - 8u * level;
    ${unroll(COPIES, (i) => `atomicStore(&bins[local + ${SAMPLE_THREADS * i}u], 0u);`)}
    atomicStore(&carries[local], 0u);
    workgroupBarrier();
    ${
  eachCandidate("listCount", 2, (id, key) =>
    `let order = vec2<u32>(${key}, placeOf(${id}));
    if (all(((order ^ prefix) & mask) == vec2<u32>(0u, 0u)) && kept(order, threshold)) {
      let weight = weightOf(${key}, byMass);
      if (weight != 0u) {
        let digit = (select(order.y, order.x, inKey) >> shift) & 255u;
        let before = atomicAdd(&bins[digit * ${COPIES}u + (local & ${COPIES - 1}u)], weight);
        if (before > ~weight) { atomicAdd(&carries[digit], 1u); }
      }
    }`)
}
    workgroupBarrier();
    var bin = vec2<u32>(0u, atomicLoad(&carries[local]));
    ${
  unroll(COPIES, (i) => `bin = add64(bin, vec2<u32>(atomicLoad(&bins[local * ${COPIES}u + ${i}u]), 0u));`)
}
    atomicStore(&bins[local * ${COPIES}u], bin.x);
    atomicStore(&carries[local], bin.y);
    workgroupBarrier();
    if (local < ${SAMPLE_THREADS / GROUP}u) {
      var sum = vec2<u32>(0u, 0u);
      for (var digit = local * ${GROUP}u; digit < local * ${GROUP}u + ${GROUP}u; digit++) {
        sum = add64(sum, binOf(digit));
      }
      groupSums[local] = sum;
    }
    workgroupBarrier();
    if (local == 0u) {
      var group = ${SAMPLE_THREADS / GROUP - 1}u;
      while (group > 0u && less64(groupSums[group], need)) {
        need = subtract64(need, groupSums[group]);
        group--;
      }
      var digit = group * ${GROUP}u + ${GROUP - 1}u;
      while (digit > group * ${GROUP}u && less64(binOf(digit), need)) {
        need = subtract64(need, binOf(digit));
        digit--;
      }
      // When even the lightest token this bin could hold cannot be spared, all of the bin is in.
      let spare = subtract64(binOf(digit), need);
      let lightest = weightOf(max(prefix.x | select(0u, digit << shift, inKey), LOWEST_KEY), byMass);
      decided = vec4<u32>(need, digit, select(0u, 1u, less64(spare, vec2<u32>(lightest, 0u))));
    }
    let found = workgroupUniformLoad(&decided);
    need = found.xy;
    if (inKey) {
      prefix.x |= found.z << shift;
      mask.x |= 255u << shift;
    } else {
      prefix.y |= found.z << shift;
      mask.y |= 255u << shift;
    }
    if (found.w != 0u) { break; }
  }
  if (precedes(threshold, prefix)) { return threshold; }
  return prefix;
}

fn binOf(digit: u32) -> vec2<u32> {
  return vec2<u32>(atomicLoad(&bins[digit * ${COPIES}u]), atomicLoad(&carries[digit]));
}
`;
