// Block-diagonal attention of many rows: each sees the keys of its own block of positions (TransNormer, arXiv:2210.10340).
//
// A workgroup owns one query head and one tile: up to 64 consecutive rows of one sequence. Four neighbouring threads
// share a row. It goes through the blocks that its rows are in, and through the positions of a block, a chunk at a time:
//
//                 chunk: keys  0 1 2 3   4 5 6 7   8 9 ...        output: word 0   1    2    3    4 ...
//   row 0  t0-t3   scores    |   t0   |   t1   |   t2 ...               |   t0 | t1 | t2 | t3 | t0 ...
//   row 1  t4-t7             |   t4   |   t5   |   t6 ...               |   t4 | t5 | t6 | t7 | t4 ...
//
// Keys and values of a chunk come through workgroup memory, from the step's rows or, what is older, from the sequence's
// state. Scores pass from thread to thread through workgroup memory; outputs stay in registers.
//
// Chunks are counted from a block's first position, and a key that a row does not see changes nothing of it: a row's
// result is the same to the bit in whatever tile and step it comes.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { ROW_SEARCH } from "./row_search.ts";
import { SCORE_BOUNDS } from "./score_bounds.ts";
import { NONE, ROW_STRUCT, TILE_STRUCT } from "./tables.ts";

/** What becomes of a score: softmax over the block, or max(score, 0) without any normalisation. */
export type DiagScore = "softmax" | "relu";

/** Compiled-in choices of {@linkcode diagAttention}. */
export interface DiagAttentionSpec {
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Positions of a block, up to {@linkcode MAX_DIAG_BLOCK}. */
  readonly block: number;
  /** What becomes of a score. */
  readonly score: DiagScore;
  /** Whether rows see no later ones; then older keys of a block come from the binding `state`. */
  readonly causal: boolean;
  /** Whether rows of the token `padToken` are no keys. */
  readonly padded: boolean;
}

/** Largest block. */
export const MAX_DIAG_BLOCK = 1024;

const TILE_ROWS = 64;
const PARTS = 4;
const THREADS = TILE_ROWS * PARTS;

/**
 * Checks the sizes of block-diagonal attention.
 *
 * @throws {RangeError} when the head size or the block does not fit.
 */
export function checkDiag({ headSize, block }: Pick<DiagAttentionSpec, "headSize" | "block">): void {
  if (!(headSize >= 4 && headSize <= 256 && headSize % 4 === 0)) {
    throw new RangeError(`headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`);
  }
  if (!(Number.isInteger(block) && block >= 1 && block <= MAX_DIAG_BLOCK)) {
    throw new RangeError(
      `block must be a whole number from 1 to ${MAX_DIAG_BLOCK}: current value is ${block}`,
    );
  }
}

/**
 * `out[row * outStride + head * headSize + d]` for the rows of all tiles and all query heads: softmax(scale * q k^T) v
 * or relu(scale * q k^T) v over the keys whose position is in the row's block, positions [b * block, (b + 1) * block);
 * with `causal` not later than the row's own. 0 for a row that sees no key. `q[row * qStride + qOffset]` begins a row's
 * queries, and so on for `k` and `v`. A tile has at most 64 rows; a sequence's rows stand in the order of positions.
 * `state` is what {@linkcode diagStore} left.
 *
 * @throws {RangeError} when the head size or the block does not fit.
 */
export function diagAttention(spec: DiagAttentionSpec): Kernel {
  const { headSize, block, score, causal, padded } = spec;
  checkDiag(spec);
  const softmax = score === "softmax";
  const words = headSize / 4;
  // Words of a thread, and keys of a chunk: about 64 multiplications of vectors in each part of a chunk.
  const own = Math.ceil(words / PARTS);
  const chunk = Math.min(own <= 4 ? 16 : own <= 8 ? 8 : 4, 4 * Math.ceil(block / 4));
  const keys = chunk / PARTS;
  const wordOf = (i: number): string =>
    words % PARTS === 0 ? `part + ${i * PARTS}u` : `min(part + ${i * PARTS}u, ${words - 1}u)`;

  const body = `
${ROW_STRUCT}
${TILE_STRUCT}
${ROW_SEARCH}
${causal ? POSITION_TAG : ""}
${SCORE_BOUNDS}
const NONE = ${NONE}u;
// Marks a slot of the state among sources.
const STATE = 0x80000000u;
var<workgroup> keyTile: array<vec4<f32>, ${chunk * words}>;
var<workgroup> valueTile: array<vec4<f32>, ${chunk * words}>;
var<workgroup> scores: array<f32, ${TILE_ROWS * (chunk + 1)}>;
var<workgroup> sources: array<u32, ${chunk}>;
var<workgroup> positions: array<u32, ${TILE_ROWS}>;

// Where the key of a position stands, if there is one.
fn sourceOf(span: vec2<u32>, position: u32${causal ? ", stateTags: u32" : ""}) -> u32 {
  if (position < rowTable[span.x].position) {
    ${
    causal
      ? `let slot = position % ${block}u;
    let tag = state[stateTags + slot];
    if (hasTag(tag) && taggedPosition(tag) == position) { return STATE | slot; }`
      : ""
  }
    return NONE;
  }
  let index = rowsBefore(span, position);
  if (index >= span.y || rowTable[span.x + index].position != position) { return NONE; }
  ${padded ? "if (rowTable[span.x + index].token == params.padToken) { return NONE; }" : ""}
  return span.x + index;
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let tile = tiles[group.x];
  if (tile.count == 0u) { return; }
  let head = group.y;
  let kvHead = head / (params.heads / params.kvHeads);
  let span = spans[tile.sequence];
  ${
    causal
      ? `let statePart = params.kvHeads * ${block * words}u;
  let stateBase = tile.sequence * (2u * statePart + ${block}u);
  let stateTags = stateBase + 2u * statePart;
  let stateKeys = stateBase + kvHead * ${block * words}u;`
      : "let lastPosition = rowTable[span.x + span.y - 1u].position;"
  }
  let inTile = local / ${PARTS}u;
  let part = local % ${PARTS}u;
  // Threads of rows over the tile's end repeat the last row and store nothing.
  let row = tile.first + min(inTile, tile.count - 1u);
  let position = rowTable[row].position;
  let query = (row * params.qStride + params.qOffset) / 4u + head * ${words}u;
  if (part == 0u) { positions[inTile] = position; }
  workgroupBarrier();
  ${unroll(own, (i) => `var o${i} = vec4<f32>(0.0);`)}
  ${
    softmax
      ? `var maximum = MASKED;
  var sum = 0.0;`
      : ""
  }
  var next = 0u;
  for (var begin = 0u; begin < tile.count; begin = next) {
    let first = positions[begin] / ${block}u * ${block}u;
    let inBlock = position - first < ${block}u;
    next = begin + 1u;
    while (next < tile.count && positions[next] - first < ${block}u) { next++; }
    let end = ${causal ? "positions[next - 1u] + 1u" : `min(first + ${block}u, lastPosition + 1u)`};
    for (var start = first; start < end; start += ${chunk}u) {
      workgroupBarrier();
      if (local < ${chunk}u) {
        sources[local] = NONE;
        if (start + local < end) {
          sources[local] = sourceOf(span, start + local${causal ? ", stateTags" : ""});
        }
      }
      workgroupBarrier();
      for (var unit = local; unit < ${chunk * words}u; unit += ${THREADS}u) {
        let source = sources[unit / ${words}u];
        let word = unit % ${words}u;
        var key = vec4<f32>(0.0);
        var value = vec4<f32>(0.0);
        if (source < STATE) {
          key = k[(source * params.kStride + params.kOffset) / 4u + kvHead * ${words}u + word];
          value = v[(source * params.vStride + params.vOffset) / 4u + kvHead * ${words}u + word];
        }${
    causal
      ? ` else if (source != NONE) {
          let place = stateKeys + (source - STATE) * ${words}u + word;
          key = state[place];
          value = state[place + statePart];
        }`
      : ""
  }
        keyTile[unit] = key;
        valueTile[unit] = value;
      }
      workgroupBarrier();
      if (inBlock) {
        ${unroll(keys, (i) => `var s${i} = 0.0;`)}
        let keyStart = part * ${keys * words}u;
        ${
    unroll(
      words,
      (w) =>
        `let q${w} = q[query + ${w}u];
        ${unroll(keys, (i) => `s${i} += dot(q${w}, keyTile[keyStart + ${i * words + w}u]);`)}`,
    )
  }
        ${
    unroll(keys, (i) => {
      const key = `part * ${keys}u + ${i}u`;
      const seen = `sources[${key}] != NONE${causal ? ` && start + ${key} <= position` : ""}`;
      const weight = softmax
        ? `clamp(params.scale * s${i}, -SCORE_LIMIT, SCORE_LIMIT)`
        : `max(params.scale * s${i}, 0.0)`;
      return `scores[inTile * ${chunk + 1}u + ${key}] = select(${
        softmax ? "MASKED" : "0.0"
      }, ${weight}, ${seen});`;
    })
  }
      }
      workgroupBarrier();
      if (inBlock) {
        let weights = inTile * ${chunk + 1}u;
        ${unroll(chunk, (k) => `${softmax ? "var" : "let"} p${k} = scores[weights + ${k}u];`)}
        ${
    softmax
      ? `let greatest = max(maximum, ${
        Array.from({ length: chunk }, (_, k) => `p${k}`).reduce((a, b) => `max(${a}, ${b})`)
      });
        if (greatest > maximum) {
          let factor = exp(maximum - greatest);
          ${unroll(own, (i) => `o${i} *= factor;`)}
          sum *= factor;
          maximum = greatest;
        }
        ${
        unroll(chunk, (k) =>
          `p${k} = select(0.0, exp(p${k} - maximum), p${k} > MASKED);
        sum += p${k};`)
      }`
      : ""
  }
        ${
    unroll(chunk, (k) =>
      unroll(own, (i) =>
        `o${i} = fma(vec4<f32>(p${k}), valueTile[${wordOf(i)} + ${k * words}u], o${i});`))
  }
      }
    }
  }
  if (inTile >= tile.count) { return; }
  let place = (tile.output + inTile) * params.outStride / 4u + head * ${words}u + part;
  ${softmax ? "let inverse = select(1.0 / sum, 0.0, sum == 0.0);" : ""}
  ${
    unroll(own, (i) => {
      const store = `out[place + ${i * PARTS}u] = o${i}${softmax ? " * inverse" : ""};`;
      return (i + 1) * PARTS > words ? `if (part + ${i * PARTS}u < ${words}u) { ${store} }` : store;
    })
  }
}
`;
  return defineKernel({
    name: `diagAttention ${score} head ${headSize} block ${block}${causal ? " causal" : ""}${
      padded ? " padded" : ""
    }`,
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
      outStride: "u32",
      padToken: "u32",
      scale: "f32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("k", "array<vec4<f32>>"),
      read("v", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      read("spans", "array<vec2<u32>>"),
      read("tiles", "array<Tile>"),
      ...(causal ? [read("state", "array<vec4<f32>>")] : []),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ tiles, heads }) => [tiles, heads, 1],
    body,
  });
}
