// Positive orthogonal random features of the Performer (Choromanski et al. 2021, arXiv:2009.14794): their products are on
// average the exponentials of softmax attention.
//
//   phi_i = exp(w_i . x' - |x'|^2 / 2 - c) / sqrt(features)          x' = x * headSize^-1/4
//
// One workgroup has one head of one row; x' stands in workgroup memory, and each invocation walks down its own column of
// the directions w, which are stored [headSize][features] so that neighbours read neighbours:
//
//   w:   f0 f1 f2 ... f(m-1)     t0 has feature f0, t1 f1, ...
//   d |   .  .  .
//   v

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";
import { workgroupThreads } from "./threads.ts";

/** Compiled-in choices of {@linkcode performerFeatures}. */
export interface PerformerFeaturesSpec {
  /** Components of a head, at most 256. */
  readonly headSize: number;
  /** Random features, at most 256. */
  readonly features: number;
  /** Whether c is the greatest exponent of the row and head, as for queries; otherwise it is 0. */
  readonly stabilized: boolean;
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
}

const MOST = 256;

/**
 * `out` [rows, heads, features] from `x` (columns of rows `stride` apart, from `offset` on) and `directions` [headSize,
 * features], all f32. Exponents are held below 80.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function performerFeatures(spec: PerformerFeaturesSpec): Kernel {
  const { headSize, features, stabilized, subgroups } = spec;
  for (const [name, value] of Object.entries({ headSize, features })) {
    if (!(Number.isInteger(value) && value >= 1 && value <= MOST)) {
      throw new RangeError(`performerFeatures takes ${name} from 1 to ${MOST}: current value is ${value}`);
    }
  }
  const threads = workgroupThreads(Math.max(headSize, features));
  const reduce = reduceArguments(subgroups);
  return defineKernel({
    name: `performerFeatures head ${headSize} features ${features}${stabilized ? " stabilized" : ""}${
      subgroups ? " subgroups" : ""
    }`,
    parameters: { rows: "u32", heads: "u32", stride: "u32", offset: "u32" },
    bindings: [
      read("x", "array<f32>"),
      read("directions", "array<f32>"),
      write("out", "array<f32>"),
    ],
    grid: ({ rows, heads }) => [...foldGrid(rows * heads), 1],
    body: `
${workgroupReduce({ name: "total", size: threads, operation: "add", subgroups })}
${stabilized ? workgroupReduce({ name: "bound", size: threads, operation: "max", subgroups }) : ""}
var<workgroup> scaled: array<f32, ${headSize}>;

@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}
) {
  let index = group.x + group.y * groups.x;
  if (index >= params.rows * params.heads) { return; }
  let first = index / params.heads * params.stride + params.offset + index % params.heads * ${headSize}u;
  var own = 0.0;
  if (local < ${headSize}u) {
    own = x[first + local] * ${headSize ** -0.25};
    scaled[local] = own;
  }
  workgroupBarrier();
  let half = 0.5 * total(own * own, ${reduce});
  let feature = min(local, ${features - 1}u);
  var exponent = -half;
  for (var d = 0u; d < ${headSize}u; d++) {
    exponent = fma(scaled[d], directions[d * ${features}u + feature], exponent);
  }
  ${stabilized ? `exponent -= bound(exponent, ${reduce});` : ""}
  if (local < ${features}u) {
    out[index * ${features}u + local] = exp(clamp(exponent, -100.0, 80.0)) * ${1 / Math.sqrt(features)};
  }
}
`,
  });
}
