// The part of gated linear attention that every row reads of its own chunk, added to what it read of the state before:
//
//   O_i += sum over j <= i of w_ij v_j     w_ij = sum over d of q_id k_jd exp(G_id - G_jd)
//
// A workgroup owns a chunk of 16 rows and a query head. For the weights, 8 words of 4 components at a time come through
// workgroup memory, and invocation local = 8 * j + part follows word `part` of key j down the chunk, decaying it row by
// row, so that no difference of large sums is ever formed:
//
//              row j            row j + 1                   row j + 2 ...
//   x = k_j -> . q_j   x *= exp(g_j+1) -> . q_j+1   x *= exp(g_j+2) -> . q_j+2
//
// The parts of a weight are added through workgroup memory. For the outputs, an invocation has one word of 4 columns of
// every 4th row (of every 8th or 16th where values are short).

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import {
  checkStateHeadSizes,
  chunkWorkgroups,
  findChunk,
  outputLanes,
  type StateHeadSizes,
} from "./state_heads.ts";
import { GLA_CHUNK } from "./linear_gla_decay.ts";
import { TILE_STRUCT } from "./tables.ts";

const PARTS = 8;
const THREADS = GLA_CHUNK * PARTS;
const COMPONENTS = ["x", "y", "z", "w"];

/**
 * Bindings `q`, `k`, `logDecay` [rows, ..] f32 and `v` [rows, ..] f32 in words of 4, with strides and offsets; `tiles`; `out`
 * [rows, heads * valueSize], which is added to. Strides and offsets of v are multiples of 4.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearGlaOutput(spec: StateHeadSizes): Kernel {
  checkStateHeadSizes(spec);
  const { keySize, valueSize } = spec;
  const keyWords = keySize / 4;
  const valueWords = valueSize / 4;
  const lanes = outputLanes(valueWords);
  const down = THREADS / lanes;
  const rows = GLA_CHUNK / down;
  const load = (tile: string, array: string, start: string, stride: string): string =>
    `{
      let at = ${start} + source * params.${stride} + 4u * min(slice + part, ${keyWords - 1}u);
      let loaded = vec4<f32>(${array}[at], ${array}[at + 1u], ${array}[at + 2u], ${array}[at + 3u]);
      ${tile}[local] = ${
      array === "logDecay" ? "exp(loaded)" : `select(vec4<f32>(), loaded, slice + part < ${keyWords}u)`
    };
    }`;
  const body = `
${TILE_STRUCT}
var<workgroup> queryTile: array<vec4<f32>, ${THREADS}>;
var<workgroup> keyTile: array<vec4<f32>, ${THREADS}>;
var<workgroup> decayTile: array<vec4<f32>, ${THREADS}>;
var<workgroup> parts: array<f32, ${GLA_CHUNK * THREADS}>;
var<workgroup> weights: array<vec4<f32>, ${GLA_CHUNK * GLA_CHUNK / 4}>;
// The weight of row j in row i: 0 below it.
fn weight(i: u32, j: u32) -> f32 {
  if (j > i) { return 0.0; }
  let at = (i - j) * ${THREADS}u + j * ${PARTS}u;
  var sum = parts[at];
  ${unroll(PARTS - 1, (p) => `sum += parts[at + ${p + 1}u];`)}
  return sum;
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  ${findChunk(GLA_CHUNK)}
  let head = group.y;
  let kvHead = head / (params.heads / params.kvHeads);
  let queryStart = params.qOffset + head * ${keySize}u;
  let keyStart = params.kOffset + kvHead * ${keySize}u;
  let decayStart = params.decayOffset + kvHead * ${keySize}u;
  let j = local / ${PARTS}u;
  let part = local % ${PARTS}u;
  // Rows over the end repeat the last one and are not stored.
  let source = first + min(j, count - 1u);
  ${unroll(GLA_CHUNK, (r) => `var w${r} = 0.0;`)}
  for (var slice = 0u; slice < ${keyWords}u; slice += ${PARTS}u) {
    workgroupBarrier();
    ${load("queryTile", "q", "queryStart", "qStride")}
    ${load("keyTile", "k", "keyStart", "kStride")}
    ${load("decayTile", "logDecay", "decayStart", "decayStride")}
    workgroupBarrier();
    var x = keyTile[local];
    w0 += dot(x, queryTile[local]);
    var at = local;
    ${
    unroll(GLA_CHUNK - 1, (r) =>
      `at = min(local + ${(r + 1) * PARTS}u, ${THREADS - PARTS}u + part);
    x *= decayTile[at];
    w${r + 1} += dot(x, queryTile[at]);`)
  }
  }
  ${unroll(GLA_CHUNK, (r) => `parts[${r * THREADS}u + local] = w${r};`)}
  workgroupBarrier();
  if (local < ${GLA_CHUNK * GLA_CHUNK / 4}u) {
    let i = local / ${GLA_CHUNK / 4}u;
    let sourceRow = local % ${GLA_CHUNK / 4}u * 4u;
    weights[local] = vec4<f32>(weight(i, sourceRow), weight(i, sourceRow + 1u), weight(i, sourceRow + 2u), weight(i, sourceRow + 3u));
  }
  workgroupBarrier();
  let lineOut = local / ${lanes}u;
  for (var word = local % ${lanes}u; word < ${valueWords}u; word += ${lanes}u) {
    ${unroll(rows, (r) => `var o${r} = vec4<f32>();`)}
    for (var sourceRow = 0u; sourceRow < count; sourceRow += 4u) {
      ${
    unroll(rows, (r) => `let p${r} = weights[(lineOut + ${r * down}u) * ${GLA_CHUNK / 4}u + sourceRow / 4u];`)
  }
      ${
    unroll(4, (c) =>
      `{
        let row = first + min(sourceRow + ${c}u, count - 1u);
        let value = v[(row * params.vStride + params.vOffset) / 4u + kvHead * ${valueWords}u + word];
        ${unroll(rows, (r) => `o${r} = fma(vec4<f32>(p${r}.${COMPONENTS[c]}), value, o${r});`)}
      }`)
  }
    }
    ${
    unroll(rows, (r) =>
      `if (lineOut + ${r * down}u < count) {
      out[((first + lineOut + ${r * down}u) * params.heads + head) * ${valueWords}u + word] += o${r};
    }`)
  }
  }
}
`;
  return defineKernel({
    name: `linearGlaOutput ${keySize} ${valueSize}`,
    parameters: {
      tiles: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      decayStride: "u32",
      decayOffset: "u32",
    },
    bindings: [
      read("q", "array<f32>"),
      read("k", "array<f32>"),
      read("logDecay", "array<f32>"),
      read("v", "array<vec4<f32>>"),
      read("tiles", "array<Tile>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ tiles, heads }) => [chunkWorkgroups(tiles, GLA_CHUNK), heads, 1],
    body,
  });
}
