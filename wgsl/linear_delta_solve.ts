// The part of the chunked delta rule that needs no state: what every row of a chunk writes (UT transform,
// arXiv:2406.06484, with decay arXiv:2412.06464).
//
// With G_i the sum of a chunk's log decays up to row i, and S the state before the chunk, the updates R of its rows obey
//
//   (I + A) R = diag(beta) V - diag(beta exp(G)) K S     A_ij = beta_i exp(G_i - G_j) (k_i . k_j) for j < i
//
// So (I + A) X = [diag(beta exp(G)) K | diag(beta) V] is solved for X = [W | U] by forward substitution, and R = U - W S.
//
// A workgroup owns a chunk and a KV head. First A (linear_delta_chunk.ts draws how), then the columns of X:
//
//           columns of W          columns of U
//   x0    | t0 | t1 | t2 | ...  | ... t255 |       every invocation solves one column (and those 256 further on), 8 rows
//   x1    | t0 | t1 | t2 | ...  | ... t255 |       at a time in registers; the rows above it reads again where it put them
//   ...

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import {
  DELTA_CHUNK,
  DELTA_THREADS,
  deltaDeclarations,
  deltaProducts,
  LOAD_LOGS,
} from "./linear_delta_chunk.ts";
import { chunkWorkgroups, findChunk } from "./state_heads.ts";
import { TILE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearDeltaSolve}; sizes of heads are parameters. */
export interface LinearDeltaSolveSpec {
  /** Whether the state decays. */
  readonly decay: boolean;
}

/** Rows that are solved at once, in registers. */
const BLOCK = 8;
const COMPONENTS = ["x", "y", "z", "w"];

/**
 * Bindings `k`, `v` [rows, ..] f32, `beta` [rows, ..] and (with `decay`) `logDecay` [rows, ..] by KV head, all with strides
 * and offsets; `tiles`; `solved` [rows, kvHeads, keySize + valueSize] f32: W, then U; and (with `decay`) `gates`
 * [rows, kvHeads]: pairs of the decay from the chunk's beginning to the row, and from the row to the chunk's end.
 */
export function linearDeltaSolve(spec: LinearDeltaSolveSpec): Kernel {
  const { decay } = spec;
  /** Loads the right sides of a block's rows; those over the end are 0. */
  const load = (scale: string, array: string, stride: string): string =>
    unroll(
      BLOCK,
      (r) =>
        `x${r} = scales[block + ${r}u].${scale} * ${array}[start + min(block + ${r}u, count - 1u) * ${stride}];`,
    );
  /** Adds row r of a block of A, whose first column stands in word `word`, times the first `known` unknowns of `from`. */
  const add = (r: number, word: string, known: number, from: string): string =>
    unroll(
      Math.ceil(known / 4),
      (w) =>
        `a = products[(block + ${r}u) * ${DELTA_CHUNK / 4}u + ${word} + ${w}u];
        ${
          unroll(
            Math.min(4, known - 4 * w),
            (c) => `x${r} = fma(a.${COMPONENTS[c]}, ${from}${4 * w + c}, x${r});`,
          )
        }`,
    );
  const body = `
${TILE_STRUCT}
${deltaDeclarations(["k"], decay)}
var<workgroup> scales: array<vec2<f32>, ${DELTA_CHUNK}>;
@compute @workgroup_size(${DELTA_THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  ${findChunk(DELTA_CHUNK)}
  let kvHead = group.y;
  let keyStart = first * params.kStride + params.kOffset + kvHead * params.keySize;
  ${decay ? LOAD_LOGS : ""}
  ${deltaProducts("params.keySize / 4u", "k", "k", { k: ["keyStart", "params.kStride"] })}
  let betaOfRow = beta[(first + min(i, count - 1u)) * params.betaStride + params.betaOffset + kvHead];
  let j = vec4<u32>(4u * w) + vec4<u32>(0u, 1u, 2u, 3u);
  ${decay ? "sums *= decays(w, i);" : ""}
  // With the other sign, so that the solution adds.
  products[local] = select(vec4<f32>(), -betaOfRow * sums, j < vec4<u32>(select(0u, i, i < count)));
  if (w == 0u) {
    var fromStart = 1.0;
    ${
    !decay ? "" : `var sum = 0.0;
    for (var m = 0u; m <= i; m++) { sum += logs[m]; }
    fromStart = exp(sum);
    sum = 0.0;
    for (var m = i + 1u; m < count; m++) { sum += logs[m]; }
    if (i < count) { gates[(first + i) * params.kvHeads + kvHead] = vec2<f32>(fromStart, exp(sum)); }`
  }
    scales[i] = select(vec2<f32>(), vec2<f32>(betaOfRow * fromStart, betaOfRow), i < count);
  }
  workgroupBarrier();
  let columns = params.keySize + params.valueSize;
  for (var column = local; column < columns; column += ${DELTA_THREADS}u) {
    let solvedStart = (first * params.kvHeads + kvHead) * columns + column;
    let solvedStride = params.kvHeads * columns;
    for (var block = 0u; block < count; block += ${BLOCK}u) {
      ${unroll(BLOCK, (r) => `var x${r}: f32;`)}
      if (column < params.keySize) {
        let start = keyStart + column;
        ${load("x", "k", "params.kStride")}
      } else {
        let start = first * params.vStride + params.vOffset + kvHead * params.valueSize + column - params.keySize;
        ${load("y", "v", "params.vStride")}
      }
      var a: vec4<f32>;
      for (var above = 0u; above < block; above += ${BLOCK}u) {
        ${unroll(BLOCK, (r) => `let y${r} = solved[solvedStart + (above + ${r}u) * solvedStride];`)}
        ${unroll(BLOCK, (r) => add(r, "above / 4u", BLOCK, "y"))}
      }
      ${unroll(BLOCK, (r) => add(r, "block / 4u", r, "x"))}
      ${
    unroll(
      BLOCK,
      (r) => `if (block + ${r}u < count) { solved[solvedStart + (block + ${r}u) * solvedStride] = x${r}; }`,
    )
  }
    }
  }
}
`;
  return defineKernel({
    name: `linearDeltaSolve${decay ? " decay" : ""}`,
    parameters: {
      tiles: "u32",
      kvHeads: "u32",
      keySize: "u32",
      valueSize: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      betaStride: "u32",
      betaOffset: "u32",
      ...(decay ? { decayStride: "u32" as const, decayOffset: "u32" as const } : {}),
    },
    bindings: [
      read("k", "array<f32>"),
      read("v", "array<f32>"),
      read("beta", "array<f32>"),
      ...(decay ? [read("logDecay", "array<f32>")] : []),
      read("tiles", "array<Tile>"),
      write("solved", "array<f32>"),
      ...(decay ? [write("gates", "array<vec2<f32>>")] : []),
    ],
    grid: ({ tiles, kvHeads }) => [chunkWorkgroups(tiles, DELTA_CHUNK), kvHeads, 1],
    body,
  });
}
