// How much attention each key of a step's rows gets from the newest of them: a second pass over queries and keys, once
// the rows' softmax is known. Without ever storing the probabilities, and without atomics.
//
// A workgroup owns 64 columns (keys of consecutive rows of one sequence) of one KV head, and goes over the lines in
// tiles of 128. A line is a query: a scored row and one of the group's heads, line = scored row * groupSize + head.
// As in matmul, invocation (tx, ty) has 8 lines x 8 columns of a tile, and both sides come through workgroup memory,
// k-major, a step of `depth` vectors of 4 at a time, the next one already being loaded into registers:
//
//             columns: tx, tx + 8, tx + 16, ...
//   lines: ty            s0_0   s0_1    s0_2        dot products; at the tile's end they become probabilities, and
//          ty + 16       s1_0   s1_1    s1_2        those of a column are added to the column's sum,
//          ...
//                         c0     c1      c2         which stays in registers from the first tile to the last
//
// In the end the 16 invocations of a column add their sums in order. Tiles count from the sequence's first scored row:
// a score does not depend on the other sequences of the step.

import { defineKernel, type Kernel, read, type StorageType, unroll, write } from "./kernel.ts";
import { loadVector, vectorArray } from "./load.ts";
import { EXTENT_STRUCT, ROW_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode columnScores}. */
export interface ColumnScoresSpec {
  /** Storage type of the keys. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Query heads of a KV head. */
  readonly groupSize: number;
  /**
   * Sums over the scored rows in place of the mean over them and all heads: with `group` each KV head's mean over its own
   * query heads, with `heads` its part of the mean over all of them.
   */
  readonly sums?: "group" | "heads";
  /** Means over the query heads of each KV head by itself, in place of parts of the mean over all heads. */
  readonly groupMeans?: boolean;
}

/** Decisions. Lines and columns of a tile, those of an invocation, vectors of 4 along the head in a step. */
const TILE_LINES = 128;
const TILE_COLUMNS = 64;
const LINES_EACH = 8;
const COLUMNS_EACH = 8;
const DEPTH = 2;

const ACROSS = TILE_COLUMNS / COLUMNS_EACH;
const DOWN = TILE_LINES / LINES_EACH;
const THREADS = ACROSS * DOWN;
/** Lines or columns that the workgroup loads at once, one vector an invocation. */
const LOADED = THREADS / DEPTH;
// With this padding, 8 neighbours that write `DEPTH` vectors of 8 / DEPTH lines meet 8 different banks.
const PADDING = 8 / DEPTH;
const LINE_SPAN = TILE_LINES + PADDING;
const COLUMN_SPAN = TILE_COLUMNS + PADDING;

/**
 * `scores[head * stride + first + j]` for the KV heads [firstHead, firstHead + arenaHeads) and every sequence with a
 * `Selection` of `count` rows from `first` on: the mean, over its newest `scored` rows (at least one) and all query
 * heads of the model, of the attention that the key of row `first + j` gets from the query heads of this KV head
 * (PyramidInfer, arXiv:2405.12532). Rows weigh from 1 for the oldest scored one to `distanceWeight` for the newest,
 * linearly. With `sums` the sum over rows stands for the mean; with `groupMeans` the mean is over the KV head's own query
 * heads.
 *
 * The key of row `first + j` stands in slot `start + j` of its extent. A sequence's rows stand in the order of their
 * positions. `logSumExps[row * heads + head]` is the log of the sum of `exp(scale * dot(q, k))` over all that the row
 * sees; only scored rows are read. `columns` is at least the largest `count`; `kvHeads` is `heads / groupSize`.
 *
 * @throws {RangeError} when the head size or the group size does not fit.
 */
export function columnScores(spec: ColumnScoresSpec): Kernel {
  const { dtype, headSize, groupSize, sums, groupMeans = false } = spec;
  if (!(headSize >= 4 && headSize <= 256 && headSize % 4 === 0)) {
    throw new RangeError(`headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`);
  }
  if (!(Number.isInteger(groupSize) && groupSize >= 1)) {
    throw new RangeError(`groupSize must be a whole number from 1 on: current value is ${groupSize}`);
  }
  const divisor = sums === "group"
    ? `${groupSize}.0`
    : sums === "heads"
    ? "f32(params.heads)"
    : groupMeans
    ? `(f32(selection.scored) * ${groupSize}.0)`
    : "(f32(selection.scored) * f32(params.heads))";
  const words = headSize / 4;
  const steps = Math.ceil(words / DEPTH);
  const padded = words % DEPTH !== 0;
  const lineLoads = TILE_LINES / LOADED;
  const columnLoads = TILE_COLUMNS / LOADED;

  // Words over the head's end repeat the last one; that the query's are 0 is enough.
  const word = padded ? `min(word, ${words - 1}u)` : "word";
  const loadQuery = (i: number): string => {
    const value = `q[query${i} + ${word}]`;
    return padded ? `select(vec4<f32>(0.0), ${value}, word < ${words}u)` : value;
  };
  const loadKey = (i: number): string => loadVector(dtype, "keys", `key${i} + ${word}`);
  const loads = `{
      let word = nextStep * ${DEPTH}u + part;
      ${unroll(lineLoads, (i) => `nextQuery${i} = ${loadQuery(i)};`)}
      ${unroll(columnLoads, (i) => `nextKey${i} = ${loadKey(i)};`)}
    }`;
  // Where the query of a line begins that this invocation loads, `ahead` lines after this tile's.
  const queryOf = (i: number, ahead: number): string =>
    `queryStart(firstRow, kvHead, min(tileStart + line + ${ahead + i * LOADED}u, lines - 1u))`;

  const products = (i: number, j: number): string =>
    ["x", "y", "z", "w"].map((c) => `s${i}_${j} = fma(a${i}.${c}, b${j}.${c}, s${i}_${j});`).join(" ");

  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${SELECTION_STRUCT}
var<workgroup> lineTile: array<vec4<f32>, ${DEPTH * LINE_SPAN}>;
var<workgroup> columnTile: array<vec4<f32>, ${DEPTH * COLUMN_SPAN}>;
var<workgroup> linePositions: array<u32, ${TILE_LINES}>;
// Log of the sum of exp, and weight.
var<workgroup> lineTerms: array<vec2<f32>, ${TILE_LINES}>;
var<workgroup> sums: array<f32, ${DOWN * TILE_COLUMNS}>;

fn queryStart(firstRow: u32, kvHead: u32, line: u32) -> u32 {
  let row = firstRow + line / ${groupSize}u;
  let head = kvHead * ${groupSize}u + line % ${groupSize}u;
  return (row * params.qStride + params.qOffset) / 4u + head * ${words}u;
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.z];
  let firstColumn = group.x * ${TILE_COLUMNS}u;
  if (firstColumn >= selection.count) { return; }
  let kvHead = params.firstHead + group.y;
  let extent = extents[(params.layer * params.sequences + group.z) * params.kvHeads + kvHead];
  let context = selection.count - selection.scored;
  let firstRow = selection.first + context;
  let lines = selection.scored * ${groupSize}u;
  let increase = (params.distanceWeight - 1.0) / f32(max(selection.scored, 2u) - 1u);

  let tx = local % ${ACROSS}u;
  let ty = local / ${ACROSS}u;
  // What this invocation loads: one vector of each of these lines and columns. Those over the end repeat the last one.
  let part = local % ${DEPTH}u;
  let line = local / ${DEPTH}u;
  let lastColumn = selection.count - 1u;
  ${
    unroll(columnLoads, (i) =>
      `let key${i} = (extent.base + extent.start + min(firstColumn + line + ${
        i * LOADED
      }u, lastColumn)) * ${words}u;`)
  }
  let firstPosition = extent.positions + extent.start;
  ${
    unroll(COLUMNS_EACH, (j) =>
      `let position${j} = slotPositions[firstPosition + min(firstColumn + tx + ${j * ACROSS}u, lastColumn)];
  var c${j} = 0.0;`)
  }
  // No row before that of the first column sees any of these columns.
  let firstLine = (max(firstColumn, context) - context) * ${groupSize}u;
  var tileStart = firstLine / ${TILE_LINES}u * ${TILE_LINES}u;
  var nextStep = 0u;
  ${unroll(lineLoads, (i) => `var query${i} = ${queryOf(i, 0)}; var nextQuery${i}: vec4<f32>;`)}
  ${unroll(columnLoads, (i) => `var nextKey${i}: vec4<f32>;`)}
  ${loads}
  for (; tileStart < lines; tileStart += ${TILE_LINES}u) {
    workgroupBarrier();
    for (var i = local; i < ${TILE_LINES}u; i += ${THREADS}u) {
      let at = min(tileStart + i, lines - 1u);
      let scored = at / ${groupSize}u;
      let row = firstRow + scored;
      linePositions[i] = rowTable[row].position;
      lineTerms[i] = vec2<f32>(
        logSumExps[row * params.heads + kvHead * ${groupSize}u + at % ${groupSize}u],
        select(0.0, fma(increase, f32(scored), 1.0), tileStart + i < lines),
      );
    }
    ${unroll(LINES_EACH, (i) => unroll(COLUMNS_EACH, (j) => `var s${i}_${j} = 0.0;`))}
    for (var step = 0u; step < ${steps}u; step++) {
      workgroupBarrier();
      ${unroll(lineLoads, (i) => `lineTile[part * ${LINE_SPAN}u + line + ${i * LOADED}u] = nextQuery${i};`)}
      ${
    unroll(columnLoads, (i) => `columnTile[part * ${COLUMN_SPAN}u + line + ${i * LOADED}u] = nextKey${i};`)
  }
      workgroupBarrier();
      nextStep = step + 1u;
      if (nextStep == ${steps}u) {
        nextStep = 0u;
        ${unroll(lineLoads, (i) => `query${i} = ${queryOf(i, TILE_LINES)};`)}
      }
      ${loads}
      ${
    unroll(DEPTH, (k) =>
      `{
        ${unroll(LINES_EACH, (i) => `let a${i} = lineTile[${k * LINE_SPAN + i * DOWN}u + ty];`)}
        ${unroll(COLUMNS_EACH, (j) => `let b${j} = columnTile[${k * COLUMN_SPAN + j * ACROSS}u + tx];`)}
        ${unroll(LINES_EACH, (i) => unroll(COLUMNS_EACH, (j) => products(i, j)))}
      }`)
  }
    }
    // A score that is seen is below its row's sum up to rounding; one that is not may be anything.
    ${
    unroll(LINES_EACH, (i) =>
      `{
      let position = linePositions[ty + ${i * DOWN}u];
      let terms = lineTerms[ty + ${i * DOWN}u];
      ${
        unroll(COLUMNS_EACH, (j) =>
          `c${j} += select(0.0, terms.y * exp(min(fma(params.scale, s${i}_${j}, -terms.x), 0.0)), position${j} <= position);`)
      }
    }`)
  }
  }
  ${unroll(COLUMNS_EACH, (j) => `sums[ty * ${TILE_COLUMNS}u + tx + ${j * ACROSS}u] = c${j};`)}
  workgroupBarrier();
  for (var i = local; i < min(${TILE_COLUMNS}u, selection.count - firstColumn); i += ${THREADS}u) {
    var sum = sums[i];
    ${unroll(DOWN - 1, (y) => `sum += sums[${(y + 1) * TILE_COLUMNS}u + i];`)}
    scores[kvHead * params.stride + selection.first + firstColumn + i] =
      sum / ${divisor};
  }
}
`;
  return defineKernel({
    name: `columnScores ${dtype} head ${headSize} group ${groupSize}${
      sums ? ` sums by ${sums}` : groupMeans ? " means by group" : ""
    }`,
    f16: dtype === "f16",
    parameters: {
      columns: "u32",
      heads: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      scale: "f32",
      distanceWeight: "f32",
      stride: "u32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("keys", vectorArray(dtype)),
      read("slotPositions", "array<u32>"),
      read("rowTable", "array<Row>"),
      read("extents", "array<Extent>"),
      read("selections", "array<Selection>"),
      read("logSumExps", "array<f32>"),
      write("scores", "array<f32>"),
    ],
    grid: ({ columns, arenaHeads, sequences }) => [Math.ceil(columns / TILE_COLUMNS), arenaHeads, sequences],
    body,
  });
}
