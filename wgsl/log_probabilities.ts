// The model's own distribution at each logit row: its log-sum-exp and its most likely tokens.
//
// One workgroup of 256 threads a row; thread t takes the tokens t, t + 256, ... The first pass gives the sum and each
// thread's largest logit; the second lists the tokens that reach a bound from these 256 values; the most likely are
// then taken from the list one by one (from the row where the list does not fit).

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";
import { eachCandidate, SAMPLE_CANDIDATES, SAMPLE_THREADS } from "./sample_candidates.ts";
import { logSumExp } from "./sample_log_sum_exp.ts";
import { SAMPLE_ORDER } from "./sample_order.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode logProbabilities}. */
export interface LogProbabilitiesSpec {
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
}

/** Most tokens that `top` can hold for one sample. */
export const MAX_TOP_LOG_PROBABILITIES = 64;

/**
 * For each of `rows` logit rows whose sequence is not done: `logSumExps[i]`, and the `count` (0 to 64) most likely tokens
 * with their natural log-probabilities, both of the raw logits. Runs before `sample` in the same step, as the entry
 * of the ring is the one that `sample` writes next: `top[(sequence * ring + generated % ring) * count + j]` is
 * (id, bits of the f32), likeliest first, ties by the lowest id; past the vocabulary's end the id is `NONE`. A NaN logit
 * counts as -infinity, whose log-probability is given as -3.4e38.
 */
export function logProbabilities(spec: LogProbabilitiesSpec): Kernel {
  const { subgroups } = spec;
  const reduce = reduceArguments(subgroups);
  return defineKernel({
    name: `log_probabilities${subgroups ? "_subgroups" : ""}`,
    parameters: { rows: "u32", vocab: "u32", ring: "u32", count: "u32" },
    bindings: [
      read("logits", "array<f32>"),
      read("logitRows", "array<u32>"),
      read("rowTable", "array<Row>"),
      read("states", "array<SequenceState>"),
      write("logSumExps", "array<f32>"),
      write("top", "array<vec2<u32>>"),
    ],
    grid: ({ rows }) => [...foldGrid(rows), 1],
    body: `
${ROW_STRUCT}
${STATE_STRUCT}
${SAMPLE_ORDER}
var<private> logitsFirst: u32;

fn keyAt(id: u32) -> u32 {
  let key = orderKey(logits[logitsFirst + min(id, params.vocab - 1u)]);
  return select(key, 0u, id == NONE);
}
${logSumExp(subgroups)}
${workgroupReduce({ name: "largest", size: SAMPLE_THREADS, operation: "max", subgroups, type: "u32" })}
${SAMPLE_CANDIDATES}
@compute @workgroup_size(${SAMPLE_THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}) {
  let i = group.x + group.y * groups.x;
  if (i >= params.rows) { return; }
  let sequence = rowTable[logitRows[i]].sequence;
  if (states[sequence].done != 0u) { return; }
  logitsFirst = i * params.vocab;
  let sums = logSumExp(logitsFirst, ${reduce});
  if (local == 0u) { logSumExps[i] = sums.x + sums.y; }
  if (params.count == 0u) { return; }

  // Threads without a token give the lowest key, which all tokens reach.
  let bound = rankedBound(orderKey(sums.z), min(params.count, params.vocab), local);
  openList(local);
  ${eachCandidate("0u", 4, (id, key) => `if (${key} >= bound) { addToList(${id}); }`)}
  let listCount = closeList(local);

  let entry = (sequence * params.ring + states[sequence].generated % params.ring) * params.count;
  var last = vec2<u32>(NONE, NONE);
  for (var j = 0u; j < params.count; j++) {
    var own = vec2<u32>(0u, 0u);
    ${
      eachCandidate("listCount", 2, (id, key) =>
        `let order = vec2<u32>(${key}, placeOf(${id}));
    if (precedes(last, order) && precedes(order, own)) { own = order; }`)
    }
    let key = largest(own.x, ${reduce});
    last = vec2<u32>(key, largest(select(0u, own.y, own.x == key), ${reduce}));
    if (local == 0u) {
      if (key == 0u) {
        top[entry + j] = vec2<u32>(NONE, bitcast<u32>(-3.4028234e38));
      } else {
        let logProbability = max((orderedFloat(key) - sums.x) - sums.y, -3.4028234e38);
        top[entry + j] = vec2<u32>(idAt(last.y), bitcast<u32>(logProbability));
      }
    }
  }
}
`,
  });
}
