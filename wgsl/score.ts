// Negative log-likelihood of a given token under each logit row: what perplexity is made of.
//
// One workgroup of 256 threads a row; thread t takes the tokens t, t + 256, ... and reads the row once.

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { reduceArguments, reduceInputs } from "./reduce.ts";
import { SAMPLE_THREADS } from "./sample_candidates.ts";
import { logSumExp } from "./sample_log_sum_exp.ts";
import { SAMPLE_ORDER } from "./sample_order.ts";

/** Compiled-in choices of {@linkcode score}. */
export interface ScoreSpec {
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
}

/**
 * `nll[i]` is the natural log of the sum of exp over row i of `logits` ([rows, vocab]) less its logit at `targets[i]`;
 * 0 where the target is `NONE`. A NaN logit counts as -infinity, and the result for a target of -infinity is 3.4e38.
 */
export function score(spec: ScoreSpec): Kernel {
  const { subgroups } = spec;
  return defineKernel({
    name: `score${subgroups ? "_subgroups" : ""}`,
    parameters: { rows: "u32", vocab: "u32" },
    bindings: [read("logits", "array<f32>"), read("targets", "array<u32>"), write("nll", "array<f32>")],
    grid: ({ rows }) => [...foldGrid(rows), 1],
    body: `
${SAMPLE_ORDER}
${logSumExp(subgroups)}
@compute @workgroup_size(${SAMPLE_THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}) {
  let i = group.x + group.y * groups.x;
  if (i >= params.rows) { return; }
  let wanted = targets[i];
  if (wanted == NONE) {
    if (local == 0u) { nll[i] = 0.0; }
    return;
  }
  let first = i * params.vocab;
  let sums = logSumExp(first, ${reduceArguments(subgroups)});
  // The difference first: it is small for a likely token, while both logits may be large.
  if (local == 0u) { nll[i] = min((sums.x - logitAt(first, wanted)) + sums.y, 3.4028234e38); }
}
`,
  });
}
