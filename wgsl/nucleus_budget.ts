// How many rows a sequence keeps when the best of them are to hold a share of all attention (top-p over keys, as in the
// algorithm box of PyramidInfer, arXiv:2405.12532).
//
//   scores, best first   |#####|####|###|##|##|#|#|.|.|. ...
//   attention            <----- share ----->              keeps = 5, in the limits that the selection sets
//
// One workgroup of 256 threads a sequence; each pass lies along the rows of its context. Scores become whole numbers of
// units, whose sums are the same in whatever order they are added. selection_border.ts finds the score at which the share
// is reached, weighing each score by its units; then the scores over this border are counted.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { SCORE_KEY, SELECTION_THREADS, selectionBorder } from "./selection_border.ts";
import { NUCLEUS_STRUCT, SELECTION_STRUCT } from "./tables.ts";

const THREADS = SELECTION_THREADS;

/** Units that the attention of a row is counted in. */
export const ATTENTION_UNITS = 2 ** 30;

/**
 * `keeps[sequence]`: the fewest rows of its context (the rows before the window) whose scores are `share` of the context's
 * together, the sinks first and then the best ones; at least `least` and at most the selection's `keep`. With a share of
 * 1 and over, `keep`. `selectRows` with `counted` finds the rows. `share` and `least` are those of the layer's
 * {@linkcode NUCLEUS_STRUCT NucleusRule}, of which a sequence has `ruleLayers`.
 *
 * `scores[first + j]`, at least 0, is counted in `units` a 1, rounded; all of a context must be below 2^32 units together.
 */
export function nucleusBudget(): Kernel {
  const eachScore = (body: string): string =>
    `for (var at = begin + local; at < end; at += ${THREADS}u) {
    let score = scores[base + at];
    let weight = unitsOf(score);
    ${body}
  }`;
  const body = `
${SELECTION_STRUCT}
${NUCLEUS_STRUCT}
${SCORE_KEY}
// Units of the context; of the sinks; scores above the border; scores at it.
var<workgroup> totals: array<atomic<u32>, 4>;

fn unitsOf(score: f32) -> u32 { return u32(max(score, 0.0) * params.units + 0.5); }
${
    selectionBorder({
      parameters: "base: u32, begin: u32, end: u32",
      tallyAll: eachScore("tally(scoreKey(score), weight, level, local);"),
    })
  }
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.x;
  let selection = selections[sequence];
  let end = selection.count - min(selection.window, selection.count);
  let most = min(selection.keep, end);
  let begin = min(selection.sinks, most);
  let rule = rules[sequence * params.ruleLayers + params.layer];
  let least = clamp(rule.least, begin, most);
  if (rule.share >= 1.0 || least == most) {
    if (local == 0u) { keeps[sequence] = most; }
    return;
  }

  let base = selection.first;
  if (local < 4u) { atomicStore(&totals[local], 0u); }
  workgroupBarrier();
  var own = 0u;
  var ownSinks = 0u;
  for (var at = local; at < end; at += ${THREADS}u) {
    let weight = unitsOf(scores[base + at]);
    own += weight;
    ownSinks += select(0u, weight, at < begin);
  }
  atomicAdd(&totals[0], own);
  atomicAdd(&totals[1], ownSinks);
  workgroupBarrier();
  let all = atomicLoad(&totals[0]);
  let sinks = atomicLoad(&totals[1]);
  let wanted = min(u32(ceil(rule.share * f32(all))), all);
  if (wanted <= sinks) {
    if (local == 0u) { keeps[sequence] = least; }
    return;
  }

  let edge = border(wanted - sinks, local, base, begin, end);
  var above = 0u;
  var equal = 0u;
  ${
    eachScore(`let masked = scoreKey(score) & edge.mask;
    above += select(0u, 1u, masked > edge.key);
    // Scores of no unit add nothing, wherever they are.
    equal += select(0u, 1u, masked == edge.key && weight > 0u);`)
  }
  atomicAdd(&totals[2], above);
  atomicAdd(&totals[3], equal);
  workgroupBarrier();
  if (local != 0u) { return; }
  let equals = atomicLoad(&totals[3]);
  // Where not all of them are needed they are of one score, and of as many units each.
  let each = max(edge.equal / max(equals, 1u), 1u);
  let taken = select((edge.need + each - 1u) / each, equals, edge.need == edge.equal);
  keeps[sequence] = clamp(begin + atomicLoad(&totals[2]) + taken, least, most);
}
`;
  return defineKernel({
    name: "nucleusBudget",
    parameters: { sequences: "u32", layer: "u32", ruleLayers: "u32", units: "f32" },
    bindings: [
      read("scores", "array<f32>"),
      read("selections", "array<Selection>"),
      read("rules", "array<NucleusRule>"),
      write("keeps", "array<u32>"),
    ],
    grid: ({ sequences }) => [sequences, 1, 1],
    body,
  });
}
