// Softmax over a window and linear attention over everything older, in one normaliser (LoLCATs, arXiv:2410.10254), of
// many rows.
//
// A workgroup owns one query head and one tile: up to 64 consecutive rows of one sequence. What is out of the window of
// the tile's first row is out of the window of all rows: its sums are there already. What follows is gone through
// entry by entry, in chunks; each row takes an entry for linear or for softmax by its own window:
//
//   positions      ... | sums of the prefix | linear for all but the first rows ... softmax |  rows of the tile
//   row 0                                   |--------- window ---------------------------- r0|
//   row 9                                             |--------- window ----------------------------- r9|
//
// Four neighbouring threads share a row:
//
//                 chunk: entries  0 1 2 3   4 5 6 7   8 9 ...     output: word 0   1    2    3    4 ...
//   row 0  t0-t3   scores       |   t0   |   t1   |   t2 ...            |   t0 | t1 | t2 | t3 | t0 ...
//   row 1  t4-t7                |   t4   |   t5   |   t6 ...            |   t4 | t5 | t6 | t7 | t4 ...
//
// Scores pass from thread to thread through workgroup memory. The two kinds of outputs stay apart in registers, because
// those of softmax are scaled anew when a greater score comes.

import { checkHybrid, hybridLayout, type HybridSizes, packedEntries } from "./hybrid_layout.ts";
import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { ROW_SEARCH } from "./row_search.ts";
import { SCORE_BOUNDS } from "./score_bounds.ts";
import { NONE, ROW_STRUCT, TILE_STRUCT } from "./tables.ts";

const TILE_ROWS = 64;
const PARTS = 4;
const THREADS = TILE_ROWS * PARTS;
const COMPONENTS = ["x", "y", "z", "w"];

/**
 * `out[row * outStride + head * headSize + d]` for the rows of all tiles and all query heads:
 *
 *     (gate * sum of exp(s_j - m) v_j + sum of (fq . f_j) v_j) / (gate * sum of exp(s_j - m) + sum of fq . f_j)
 *
 * with s_j = scale * dot(q, k_j), the sums of exp over the positions (p - window, p] and m the greatest s_j there, and the
 * others over all older positions. `q[row * qStride + qOffset]` begins a row's queries, `qFeatures[row * fStride +
 * fOffset]` their features. `packed` and `prefixes` are what {@linkcode hybridPack} and {@linkcode hybridScan} made.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function hybridAttention(sizes: HybridSizes): Kernel {
  checkHybrid(sizes);
  const { headSize, featureSize, window } = sizes;
  const { words, features, entry, featuresAt, valueAt, sums } = hybridLayout(sizes);
  // Words of a thread, and entries of a chunk: about 64 multiplications of vectors in each part of a chunk.
  const own = Math.ceil(words / PARTS);
  const chunk = own <= 4 ? 16 : own <= 8 ? 8 : 4;
  const keys = chunk / PARTS;
  const wordOf = (i: number): string =>
    words % PARTS === 0 ? `part + ${i * PARTS}u` : `min(part + ${i * PARTS}u, ${words - 1}u)`;
  const padded = chunk + 1;

  const body = `
${ROW_STRUCT}
${TILE_STRUCT}
${ROW_SEARCH}
${packedEntries(window)}
${SCORE_BOUNDS}
const NONE = ${NONE}u;
var<workgroup> scores: array<f32, ${TILE_ROWS * padded}>;
var<workgroup> products: array<f32, ${TILE_ROWS * padded}>;
// Positions of a chunk's entries, and where they stand.
var<workgroup> positions: array<u32, ${chunk}>;
var<workgroup> places: array<u32, ${chunk}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let tile = tiles[group.x];
  if (tile.count == 0u) { return; }
  let head = group.y;
  let kvHead = head / (params.heads / params.kvHeads);
  let span = spans[tile.sequence];
  let start = i32(rowTable[span.x].position);
  let inTile = local / ${PARTS}u;
  let part = local % ${PARTS}u;
  // Threads of rows over the tile's end repeat the last row and store nothing.
  let row = tile.first + min(inTile, tile.count - 1u);
  let position = rowTable[row].position;
  let query = (row * params.qStride + params.qOffset) / 4u + head * ${words}u;
  let queryFeatures = (row * params.fStride + params.fOffset) / 4u + head * ${features}u;

  // Outputs of linear attention and of softmax, with their sums of weights.
  ${
    unroll(own, (i) =>
      `var linear${i} = vec4<f32>(0.0);
  var soft${i} = vec4<f32>(0.0);`)
  }
  var linearSum = 0.0;
  var softSum = 0.0;
  var maximum = MASKED;
  var prefix = (group.x * params.kvHeads + kvHead) * ${sums}u;
  for (var feature = 0u; feature < ${features}u; feature++) {
    let f = qFeatures[queryFeatures + feature];
    ${
    unroll(4, (c) => {
      const at = c * (words + 1);
      const factor = `f.${COMPONENTS[c]}`;
      return `${
        unroll(
          own,
          (i) =>
            `linear${i} = fma(vec4<f32>(${factor}), prefixes[prefix + ${at}u + ${wordOf(i)}], linear${i});`,
        )
      }
    linearSum = fma(${factor}, prefixes[prefix + ${at + words}u].x, linearSum);`;
    })
  }
    prefix += ${4 * (words + 1)}u;
  }

  let end = ${window}u + tile.first - span.x + tile.count;
  for (
    var first = entriesUpTo(span, i32(rowTable[tile.first].position) - ${window});
    first < end;
    first += ${chunk}u
  ) {
    workgroupBarrier();
    if (local < ${chunk}u) {
      let index = first + local;
      let place = (packedAt(tile.sequence, span, min(index, end - 1u)) * params.kvHeads + kvHead) * ${entry}u;
      var position = NONE;
      if (index < ${window}u) {
        // An entry without a tag is of a position without a token.
        if (packed[place].x != 0.0) { position = u32(start - ${window} + i32(index)); }
      } else if (index < end) {
        position = rowTable[span.x + index - ${window}u].position;
      }
      positions[local] = position;
      places[local] = place;
    }
    workgroupBarrier();
    ${
    unroll(keys, (i) =>
      `let at${i} = part * ${keys}u + ${i}u;
    let place${i} = places[at${i}];
    let seen${i} = positions[at${i}] <= position;
    let inside${i} = seen${i} && position - positions[at${i}] < ${window}u;
    var s${i} = 0.0;
    var f${i} = 0.0;`)
  }
    if (${Array.from({ length: keys }, (_, i) => `inside${i}`).join(" || ")}) {
      for (var w = 0u; w < ${words}u; w++) {
        let value = q[query + w];
        ${unroll(keys, (i) => `s${i} += dot(value, packed[place${i} + 1u + w]);`)}
      }
    }
    if (${Array.from({ length: keys }, (_, i) => `(seen${i} && !inside${i})`).join(" || ")}) {
      for (var w = 0u; w < ${features}u; w++) {
        let value = qFeatures[queryFeatures + w];
        ${unroll(keys, (i) => `f${i} += dot(value, packed[place${i} + ${featuresAt}u + w]);`)}
      }
    }
    ${
    unroll(keys, (i) =>
      `scores[inTile * ${padded}u + at${i}] =
      select(MASKED, clamp(params.scale * s${i}, -SCORE_LIMIT, SCORE_LIMIT), inside${i});
    products[inTile * ${padded}u + at${i}] = select(0.0, f${i}, seen${i} && !inside${i});`)
  }
    workgroupBarrier();
    let weights = inTile * ${padded}u;
    ${unroll(chunk, (k) => `var p${k} = scores[weights + ${k}u];`)}
    let greatest = max(maximum, ${
    Array.from({ length: chunk }, (_, k) => `p${k}`).reduce((a, b) => `max(${a}, ${b})`)
  });
    if (greatest > maximum) {
      let factor = exp(maximum - greatest);
      ${unroll(own, (i) => `soft${i} *= factor;`)}
      softSum *= factor;
      maximum = greatest;
    }
    ${
    unroll(chunk, (k) =>
      `p${k} = select(0.0, exp(p${k} - maximum), p${k} > MASKED);
    let l${k} = products[weights + ${k}u];
    softSum += p${k};
    linearSum += l${k};
    let value${k} = places[${k}u] + ${valueAt}u;
    ${
        unroll(own, (i) =>
          `let v${k}_${i} = packed[value${k} + ${wordOf(i)}];
    soft${i} = fma(vec4<f32>(p${k}), v${k}_${i}, soft${i});
    linear${i} = fma(vec4<f32>(l${k}), v${k}_${i}, linear${i});`)
      }`)
  }
  }
  if (inTile >= tile.count) { return; }
  let place = (tile.output + inTile) * params.outStride / 4u + head * ${words}u + part;
  let inverse = 1.0 / fma(params.gate, softSum, linearSum);
  ${
    unroll(own, (i) => {
      const store = `out[place + ${
        i * PARTS
      }u] = fma(vec4<f32>(params.gate), soft${i}, linear${i}) * inverse;`;
      return (i + 1) * PARTS > words ? `if (part + ${i * PARTS}u < ${words}u) { ${store} }` : store;
    })
  }
}
`;
  return defineKernel({
    name: `hybridAttention head ${headSize} features ${featureSize} window ${window}`,
    parameters: {
      tiles: "u32",
      sequences: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      fStride: "u32",
      fOffset: "u32",
      outStride: "u32",
      scale: "f32",
      gate: "f32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("qFeatures", "array<vec4<f32>>"),
      read("packed", "array<vec4<f32>>"),
      read("prefixes", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      read("spans", "array<vec2<u32>>"),
      read("tiles", "array<Tile>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ tiles, heads }) => [tiles, heads, 1],
    body,
  });
}
