// How many rows each KV head keeps when the heads of a sequence share one budget (Ada-KV, arXiv 2407.11550).
//
// One workgroup of 256 threads a sequence; every pass lies along the rows of one head after the other. First each head's
// floor: the border that its surest scores reach. What is left of a head are its scores below that border, and those at
// it that it does not need; `limits` holds this by head. Then the border of the best among what is left of all heads.
// Both are found by selection_border.ts. In the end the scores over this border are counted by head.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { eachKey, SCORE_KEY, SELECTION_THREADS, selectionBorder } from "./selection_border.ts";
import { SELECTION_STRUCT } from "./tables.ts";

const THREADS = SELECTION_THREADS;

/** Most KV heads that {@linkcode spreadBudget} takes. */
export const SPREAD_BUDGET_HEADS = 256;

/**
 * `keeps[sequence * heads + head]`: how many rows of its context (the rows before the window) each of `heads` KV heads
 * keeps, of `heads * keep` in all. A head is sure of its `floor(share * keep)` best rows, in f32, or of its sinks where
 * these are more (never more than `keep`); sinks come before all others. The rest goes to the best scores over all heads
 * of what is left, ties to the lower head. The counts add up to `heads * min(keep, context)`; with `counted`,
 * `selectRows` finds the rows. `scores[head * stride + first + j]` is as there; `share` is from 0 to 1.
 */
export function spreadBudget(): Kernel {
  const body = `
${SELECTION_STRUCT}
${SCORE_KEY}
// Left of a head: its keys below x, and y of its keys x.
var<workgroup> limits: array<vec2<u32>, ${SPREAD_BUDGET_HEADS}>;
var<workgroup> aboveCounts: array<atomic<u32>, ${SPREAD_BUDGET_HEADS}>;
var<workgroup> atLeastCounts: array<atomic<u32>, ${SPREAD_BUDGET_HEADS}>;
${
    selectionBorder({
      parameters: "firstHead: u32, endHead: u32, first: u32, begin: u32, end: u32",
      tallyAll: `for (var head = firstHead; head < endHead; head++) {
      let limit = limits[head];
      let base = head * params.stride + first;
      if (local == 0u) { tally(limit.x, limit.y, level, local); }
      ${
        eachKey("base", "begin", "end", (key) => `if (${key} < limit.x) { tally(${key}, 1u, level, local); }`)
      }
    }`,
    })
  }
// Scores of a head that all heads may win, of \`count\` that are good enough for it.
fn beyond(count: u32, sure: u32) -> u32 { return max(count, sure) - sure; }

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.x;
  let selection = selections[sequence];
  let heads = params.heads;
  let context = selection.count - min(selection.window, selection.count);
  let keep = min(selection.keep, context);
  let sinks = min(selection.sinks, keep);
  let assured = clamp(u32(params.share * f32(keep)), sinks, keep);
  if (keep == context || assured == keep) {
    for (var head = local; head < heads; head += ${THREADS}u) { keeps[sequence * heads + head] = keep; }
    return;
  }

  let sure = assured - sinks;
  limits[local] = vec2<u32>(NO_KEY, 0u);
  atomicStore(&aboveCounts[local], 0u);
  atomicStore(&atLeastCounts[local], 0u);
  workgroupBarrier();
  for (var head = 0u; head < heads && sure > 0u; head++) {
    let least = border(sure, local, head, head + 1u, selection.first, sinks, context);
    if (local == 0u) { limits[head] = vec2<u32>(least.key, least.equal - least.need); }
  }
  let least = border(heads * (keep - assured), local, 0u, heads, selection.first, sinks, context);

  for (var head = 0u; head < heads; head++) {
    let base = head * params.stride + selection.first;
    var aboveOwn = 0u;
    var atLeastOwn = 0u;
    ${
    eachKey("base", "sinks", "context", (key) =>
      `aboveOwn += select(0u, 1u, (${key} & least.mask) > least.key);
    atLeastOwn += select(0u, 1u, (${key} & least.mask) >= least.key);`)
  }
    if (aboveOwn > 0u) { atomicAdd(&aboveCounts[head], aboveOwn); }
    if (atLeastOwn > 0u) { atomicAdd(&atLeastCounts[head], atLeastOwn); }
  }
  workgroupBarrier();
  if (local >= heads) { return; }
  // Lower heads have the first of the scores at the border.
  var equalBefore = 0u;
  for (var head = 0u; head < local; head++) {
    equalBefore += beyond(atomicLoad(&atLeastCounts[head]), sure) - beyond(atomicLoad(&aboveCounts[head]), sure);
  }
  let won = beyond(atomicLoad(&aboveCounts[local]), sure);
  let equal = beyond(atomicLoad(&atLeastCounts[local]), sure) - won;
  keeps[sequence * heads + local] = assured + won + min(equal, beyond(least.need, equalBefore));
}
`;
  return defineKernel({
    name: "spreadBudget",
    parameters: { heads: "u32", sequences: "u32", stride: "u32", share: "f32" },
    bindings: [
      read("scores", "array<f32>"),
      read("selections", "array<Selection>"),
      write("keeps", "array<u32>"),
    ],
    grid: ({ sequences }) => [sequences, 1, 1],
    body,
  });
}
