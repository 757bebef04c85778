// Samples the next token of each logit row and moves its sequence on, so that no token has to reach the host before
// the next step is submitted.
//
// One workgroup of 256 threads a logit row; thread t takes the tokens t, t + 256, ... Passes over the row: the
// largest logit; with top-k or top-p, one that lists the few tokens that can still matter, and then passes over that
// list (over the row where it does not fit) that find the exact threshold; last, the draw. Greedy is one pass.

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";
import { eachCandidate, SAMPLE_CANDIDATES, SAMPLE_THREADS } from "./sample_candidates.ts";
import { SAMPLE_GUMBEL } from "./sample_gumbel.ts";
import { SAMPLE_ORDER } from "./sample_order.ts";
import { SAMPLE_THRESHOLD } from "./sample_threshold.ts";
import { ROW_STRUCT, SAMPLE_STRUCT, SAMPLING_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode sample}. */
export interface SampleSpec {
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
  /** Whether a logit bias and penalties are applied (all sequences of the call then have rows in `counts` and `bias`). */
  readonly edits: boolean;
}

const PLAIN_KEY = `fn keyAt(id: u32) -> u32 {
  let key = orderKey(logits[logitsFirst + min(id, params.vocab - 1u)]);
  return select(key, 0u, id == NONE);
}`;

const EDITED_KEY = `fn keyAt(id: u32) -> u32 {
  let at = min(id, params.vocab - 1u);
  let raw = orderKey(logits[logitsFirst + at]);
  let shift = orderKey(bias[editsFirst + at]);
  let seen = counts[editsFirst + at];
  var z = orderedFloat(raw) + orderedFloat(shift);
  if (seen != 0u) {
    let times = f32(seen & 0x7fffffffu);
    z = select(z * setting.repetitionPenalty, z / setting.repetitionPenalty, z > 0.0);
    z -= setting.frequencyPenalty * times;
    z -= select(0.0, setting.presencePenalty, times > 0.0);
  }
  // What is banned stays banned: a repetition penalty below 1 would lift the lowest float.
  let key = select(orderKey(z), LOWEST_KEY, raw == LOWEST_KEY || shift == LOWEST_KEY);
  return select(key, 0u, id == NONE);
}`;

/**
 * Samples one token for each of `rows` logit rows and writes it to `samples` and `states`; sequences that are done are
 * left alone. Logit row i belongs to `rowTable[logitRows[i]]`, no two to the same sequence, and its token takes the
 * position after that row's.
 *
 * Order: forced tokens first; otherwise bias, penalties (repetition, frequency, presence), temperature, top-k, top-p,
 * min-p, then a draw by the Gumbel-max trick, so that a token depends on its logits, settings, seed and position
 * alone. Temperature 0 takes the largest logit. All ties go to the lowest id. A NaN logit counts as -infinity, and
 * -infinity is never chosen unless there is nothing else.
 *
 * `counts` and `bias` (with `edits`) are [sequences, vocab]: bit 31 of a count says that the prompt has the token,
 * the rest how often it was generated. With `logprobs` 1 the sample gets its natural log-probability from
 * `logSumExps`, which `logProbabilities` fills before; without, that binding may be any buffer. `vocab` is at most
 * 2^24 - 1.
 */
export function sample(spec: SampleSpec): Kernel {
  const { subgroups, edits } = spec;
  const reduce = reduceArguments(subgroups);
  const reduceTypes = reduce.split(", ").map((name) => `${name}: u32`).join(", ");
  return defineKernel({
    name: `sample${edits ? "_edits" : ""}${subgroups ? "_subgroups" : ""}`,
    parameters: { rows: "u32", vocab: "u32", ring: "u32", logprobs: "u32" },
    bindings: [
      read("logits", "array<f32>"),
      read("logitRows", "array<u32>"),
      read("rowTable", "array<Row>"),
      write("states", "array<SequenceState>"),
      read("settings", "array<Sampling>"),
      read("stopIds", "array<u32>"),
      read("forced", "array<u32>"),
      write("samples", "array<Sample>"),
      read("logSumExps", "array<f32>"),
      ...(edits ? [write("counts", "array<u32>"), read("bias", "array<f32>")] : []),
    ],
    grid: ({ rows }) => [...foldGrid(rows), 1],
    body: `
${ROW_STRUCT}
${STATE_STRUCT}
${SAMPLING_STRUCT}
${SAMPLE_STRUCT}
${SAMPLE_ORDER}
var<workgroup> stateBefore: SequenceState;
var<private> setting: Sampling;
var<private> logitsFirst: u32;
var<private> editsFirst: u32;
var<private> peak: u32;

${edits ? EDITED_KEY : PLAIN_KEY}

// (z - largest z) / temperature, 0 at the most; -200 stands for all that has no chance.
fn scaled(key: u32) -> f32 {
  let distance = orderedFloat(key) - orderedFloat(peak);
  let hopeless = distance < -200.0 * setting.temperature || (key == LOWEST_KEY && peak != LOWEST_KEY);
  return select(distance / setting.temperature, -200.0, hopeless);
}

fn weightOf(key: u32, byMass: bool) -> u32 {
  if (!byMass) { return 1u; }
  // The largest f32 below 2^32 is the unit.
  return u32(min(exp(scaled(key)) * 4294967040.0 + 0.5, 4294967040.0));
}

${workgroupReduce({ name: "largest", size: SAMPLE_THREADS, operation: "max", subgroups, type: "u32" })}
// The first in order of all invocations' (key, place) pairs.
fn firstOf(order: vec2<u32>, ${reduceTypes}) -> vec2<u32> {
  let key = largest(order.x, ${reduce});
  return vec2<u32>(key, largest(select(0u, order.y, order.x == key), ${reduce}));
}
${SAMPLE_CANDIDATES}
${SAMPLE_THRESHOLD}
${SAMPLE_GUMBEL}

@compute @workgroup_size(${SAMPLE_THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}) {
  let i = group.x + group.y * groups.x;
  if (i >= params.rows) { return; }
  // Read-only tables are uniform over the workgroup; the writable one goes through workgroup memory.
  let row = rowTable[logitRows[i]];
  let sequence = row.sequence;
  if (local == 0u) { stateBefore = states[sequence]; }
  let state = workgroupUniformLoad(&stateBefore);
  if (state.done != 0u) { return; }
  let options = settings[sequence];
  setting = options;
  logitsFirst = i * params.vocab;
  editsFirst = sequence * params.vocab;

  let isForced = state.generated < options.forcedCount;
  var token = 0u;
  if (isForced) {
    token = forced[options.forcedFirst + state.generated];
  } else {
    var own = vec2<u32>(0u, 0u);
    ${eachCandidate("0u", 8, (id, key) => `if (${key} > own.x) { own = vec2<u32>(${key}, placeOf(${id})); }`)}
    let top = firstOf(own, ${reduce});
    peak = top.x;
    token = idAt(top.y);

    // A temperature that flushes to zero is zero.
    if (options.temperature >= 1.17549435e-38) {
      var threshold = vec2<u32>(0u, 0u);
      var listCount = 0u;
      for (var stage = 0u; stage < 2u; stage++) {
        let byMass = stage == 1u;
        let limited = select(options.topK > 0u && options.topK < params.vocab, options.topP < 1.0, byMass);
        if (!limited) { continue; }
        var need = vec2<u32>(options.topK, 0u);
        var bound = 0u;
        if (byMass) {
          let mass = massNeeded(options.topP, threshold, listCount, local);
          need = mass.xy;
          bound = mass.z;
        } else if (options.topK <= ${SAMPLE_THREADS}u) {
          bound = rankedBound(own.x, options.topK, local);
        }
        if (listCount == 0u && bound > 0u) {
          openList(local);
          ${
      eachCandidate("0u", 4, (id, key) =>
        `if (select(${key}, weightOf(${key}, byMass), byMass) >= bound) {
            if (kept(vec2<u32>(${key}, placeOf(${id})), threshold)) { addToList(${id}); }
          }`)
    }
          listCount = closeList(local);
        }
        threshold = narrow(byMass, need, threshold, listCount, local);
      }

      // The first token is always kept. Nothing below its score less the largest noise can win.
      let position = row.position + 1u;
      let score = gumbel(options.seedLow, options.seedHigh, position, token);
      var least = score - GUMBEL_LIMIT;
      // Relative to the largest probability, min-p needs no sum: what lies below top-p is out already.
      if (options.minP > 0.0) { least = max(least, min(log(options.minP), 0.0)); }
      var best = vec2<u32>(orderKey(score), top.y);
      ${
      eachCandidate("listCount", 4, (id, key) =>
        `let z = scaled(${key});
        let order = vec2<u32>(${key}, placeOf(${id}));
        if (z >= least && kept(order, threshold)) {
          let noisy = z + gumbel(options.seedLow, options.seedHigh, position, ${id});
          let drawn = vec2<u32>(orderKey(noisy), order.y);
          if (precedes(drawn, best)) { best = drawn; }
        }`)
    }
      token = idAt(firstOf(best, ${reduce}).y);
    }
  }
  if (local != 0u) { return; }

  var stopped = select(0u, 2u, state.remaining <= 1u);
  if (!isForced) {
    for (var s = 0u; s < options.stopCount; s++) {
      if (stopIds[options.stopFirst + s] == token) { stopped = 1u; }
    }
  }
  var logSumExp = 0.0;
  var logProbability = 0.0;
  if (params.logprobs != 0u) {
    logSumExp = logSumExps[i];
    logProbability = logits[logitsFirst + token] - logSumExp;
  }
  samples[sequence * params.ring + state.generated % params.ring] =
    Sample(token, stopped, logProbability, logSumExp);
  var next = state;
  next.token = token;
  next.position = row.position + 1u;
  next.generated = state.generated + 1u;
  next.remaining = max(state.remaining, 1u) - 1u;
  next.done = select(0u, 1u, stopped != 0u);
  states[sequence] = next;
${edits ? "  if (stopped != 1u) { counts[editsFirst + token] += 1u; }" : ""}
}
`,
  });
}
