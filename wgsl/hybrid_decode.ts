// Window softmax and linear attention of one row a sequence, over its state and the row itself.
//
// A workgroup owns one row and one query head. First its threads have the entries of the ring by turns, and the row
// itself as one more, and score each for softmax or for linear; then a thread has one word of the output, or the one
// that counts, and every s-th weight:
//
//   weights:  | entries of the ring | row |      words:   0    1   ...   count
//   then      | features of the query |                  t0   t1  ...   tn       weights 0, s, 2s ..
//                                                        tn+1 ...                weights 1, s + 1 ..
//
// The features of the query are weights as well: those of the sums over what has left the window.

import { checkHybrid, hybridLayout, type HybridSizes } from "./hybrid_layout.ts";
import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { workgroupReduce } from "./reduce.ts";
import { SCORE_BOUNDS } from "./score_bounds.ts";
import { ROW_STRUCT } from "./tables.ts";

const THREADS = 256;

/**
 * As {@linkcode hybridAttention}, for `rows` rows of different sequences. `state` does not have the rows themselves yet; what
 * has left the window by now may still stand in its ring.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function hybridDecode(sizes: HybridSizes): Kernel {
  checkHybrid(sizes);
  const { headSize, featureSize, window } = sizes;
  const { words, features, entry, featuresAt, valueAt, sums, head } = hybridLayout(sizes);
  const across = words + 1;
  const splits = Math.floor(THREADS / across);
  const body = `
${ROW_STRUCT}
${POSITION_TAG}
${SCORE_BOUNDS}
const ONE = vec4<f32>(1.0, 0.0, 0.0, 0.0);
// Scores for softmax, products for linear; then weights in place of products.
var<workgroup> scores: array<f32, ${window + 1}>;
var<workgroup> weights: array<f32, ${window + 1}>;
var<workgroup> outputs: array<vec4<f32>, ${THREADS}>;
${workgroupReduce({ name: "largest", size: THREADS, operation: "max", subgroups: false })}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = group.x;
  let queryHead = group.y;
  let kvHead = queryHead / (params.heads / params.kvHeads);
  let position = rowTable[row].position;
  let base = (rowTable[row].sequence * params.kvHeads + kvHead) * ${head}u;
  let query = (row * params.qStride + params.qOffset) / 4u + queryHead * ${words}u;
  let queryFeatures = (row * params.qfStride + params.qfOffset) / 4u + queryHead * ${features}u;
  let key = (row * params.kStride + params.kOffset) / 4u + kvHead * ${words}u;
  let value = (row * params.vStride + params.vOffset) / 4u + kvHead * ${words}u;
  var greatest = MASKED;
  for (var slot = local; slot <= ${window}u; slot += ${THREADS}u) {
    var s = MASKED;
    var product = 0.0;
    if (slot == ${window}u) {
      s = 0.0;
      for (var w = 0u; w < ${words}u; w++) { s += dot(q[query + w], k[key + w]); }
      s = clamp(params.scale * s, -SCORE_LIMIT, SCORE_LIMIT);
    } else {
      let held = base + ${sums}u + slot * ${entry}u;
      let tag = state[held];
      if (hasTag(tag)) {
        if (position - taggedPosition(tag) < ${window}u) {
          s = 0.0;
          for (var w = 0u; w < ${words}u; w++) { s += dot(q[query + w], state[held + 1u + w]); }
          s = clamp(params.scale * s, -SCORE_LIMIT, SCORE_LIMIT);
        } else {
          for (var w = 0u; w < ${features}u; w++) {
            product += dot(qFeatures[queryFeatures + w], state[held + ${featuresAt}u + w]);
          }
        }
      }
    }
    scores[slot] = s;
    weights[slot] = product;
    greatest = max(greatest, s);
  }
  let maximum = largest(greatest, local);
  for (var slot = local; slot <= ${window}u; slot += ${THREADS}u) {
    if (scores[slot] > MASKED) { weights[slot] = params.gate * exp(scores[slot] - maximum); }
  }
  workgroupBarrier();
  let word = local % ${across}u;
  let split = local / ${across}u;
  let counts = word == ${words}u;
  let own = min(word, ${words - 1}u);
  var output = vec4<f32>(0.0);
  if (split < ${splits}u) {
    for (var slot = split; slot < ${window}u; slot += ${splits}u) {
      if (weights[slot] == 0.0) { continue; }
      let v = select(state[base + ${sums}u + slot * ${entry}u + ${valueAt}u + own], ONE, counts);
      output = fma(vec4<f32>(weights[slot]), v, output);
    }
    if (split == 0u) {
      output = fma(vec4<f32>(weights[${window}]), select(v[value + own], ONE, counts), output);
    }
    for (var feature = split; feature < ${features}u; feature += ${splits}u) {
      let f = qFeatures[queryFeatures + feature];
      let held = base + 4u * feature * ${across}u + word;
      ${
    unroll(4, (c) =>
      `output = fma(vec4<f32>(f.${["x", "y", "z", "w"][c]}), state[held + ${c * across}u], output);`)
  }
    }
  }
  outputs[local] = output;
  workgroupBarrier();
  if (local < ${across}u) {
    ${unroll(splits - 1, (i) => `output += outputs[local + ${(i + 1) * across}u];`)}
    outputs[local] = output;
  }
  workgroupBarrier();
  if (local < ${words}u) {
    out[row * params.outStride / 4u + queryHead * ${words}u + local] = output / outputs[${words}].x;
  }
}
`;
  return defineKernel({
    name: `hybridDecode head ${headSize} features ${featureSize} window ${window}`,
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      qfStride: "u32",
      qfOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      outStride: "u32",
      scale: "f32",
      gate: "f32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("qFeatures", "array<vec4<f32>>"),
      read("k", "array<vec4<f32>>"),
      read("v", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      read("state", "array<vec4<f32>>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ rows, heads }) => [rows, heads, 1],
    body,
  });
}
