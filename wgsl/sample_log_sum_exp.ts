// The log of a softmax's denominator over one row, read once.

import { unroll } from "./kernel.ts";
import { reduceArguments, workgroupReduce } from "./reduce.ts";
import { SAMPLE_THREADS } from "./sample_candidates.ts";

/** Values a thread fetches at once; each has a sum of its own, which also keeps the rounding small. */
const UNROLLED = 8;

/**
 * WGSL over `SAMPLE_ORDER`, a binding `logits` and a parameter `vocab`: `logSumExp(first, local, ...) -> vec3<f32>`
 * gives the largest of the row `logits[first .. first + vocab)`, the log of the sum of exp(logit - largest), and the
 * largest logit of this invocation's own tokens local, local + 256, ... All invocations call in uniform control flow.
 */
export function logSumExp(subgroups: boolean): string {
  const reduce = reduceArguments(subgroups);
  const types = reduce.split(", ").map((name) => `${name}: u32`).join(", ");
  return `
${workgroupReduce({ name: "largestLogit", size: SAMPLE_THREADS, operation: "max", subgroups })}
${workgroupReduce({ name: "sumOf", size: SAMPLE_THREADS, operation: "add", subgroups })}
fn logitAt(first: u32, id: u32) -> f32 {
  let key = orderKey(logits[first + min(id, params.vocab - 1u)]);
  return orderedFloat(select(LOWEST_KEY, key, id < params.vocab));
}

// exp(a - b), 0 also where the difference overflows.
fn expOf(a: f32, b: f32) -> f32 { return exp(max(a - b, -10000.0)); }

fn logSumExp(first: u32, ${types}) -> vec3<f32> {
  var own = orderedFloat(LOWEST_KEY);
  ${unroll(UNROLLED, (i) => `var sum${i} = 0.0;`)}
  for (var id = local; id < params.vocab; id += ${SAMPLE_THREADS * UNROLLED}u) {
    ${unroll(UNROLLED, (i) => `let z${i} = logitAt(first, id + ${SAMPLE_THREADS * i}u);`)}
    var next = own;
    ${unroll(UNROLLED, (i) => `next = max(next, z${i});`)}
    let shrink = expOf(own, next);
    own = next;
    ${
    unroll(UNROLLED, (i) =>
      `sum${i} = sum${i} * shrink + select(0.0, expOf(z${i}, own), id + ${
        SAMPLE_THREADS * i
      }u < params.vocab);`)
  }
  }
  let peak = largestLogit(own, ${reduce});
  let ownSum = ((sum0 + sum1) + (sum2 + sum3)) + ((sum4 + sum5) + (sum6 + sum7));
  let sum = sumOf(ownSum * expOf(own, peak), ${reduce});
  return vec3<f32>(peak, log(sum), own);
}
`;
}
