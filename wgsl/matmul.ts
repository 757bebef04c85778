// The matmul of prefill and of batches: many rows, bound by arithmetic.
//
//   out[r, outputOffset + j] = sum over k of x[r, k] * w[firstRow + j, k]
//
// One workgroup owns a tile of tileRows x tileColumns outputs. Invocation (tx, ty) of it owns rowsEach x columnsEach of
// them, spread so that neighbours in tx read and write neighbouring columns:
//
//             columns: tx, tx + across, tx + 2 * across, ...        across = tileColumns / columnsEach
//   rows: ty             s0_0   s0_1              s0_2
//         ty + down      s1_0   s1_1              s1_2              down   = tileRows / rowsEach
//
// k advances by `depth` vectors of 4: the tiles of x and w for these are in workgroup memory as f32, k-major
// (`depth` lines of tileRows vectors), while those of the next step are already being loaded into registers.
// All tiles and sums are named scalars and vectors, the inner loops are unrolled by the generator.
//
// An output is one chain of fma over k from 0 up: the same bits for every tile size, row count and place in the tile.
//
// With few rows and columns that makes few workgroups, each with a long way to go. So the third dimension of the grid may
// split k into parts of whole stretches, one chain of fma each, whose sums wait side by side for matmulReduce:
//
//   k:   |  split 0  |  split 1  |  ...  |        sums[split, r, outputOffset + j]
//
// Then an output's bits depend on k and the number of splits: still not on the tile, the row count and the place.

import { defineKernel, type Kernel, read, type StorageType, unroll, write } from "./kernel.ts";

/** Compiled-in choices of {@linkcode matmul}. */
export interface MatmulSpec {
  /** Storage type of the weight. */
  readonly dtype: StorageType;
  /** Whether k and inputStride are multiples of 4. */
  readonly vectorized: boolean;
  /** What follows the dot product; after `split` come the sums of matmulReduce. */
  readonly epilogue: "none" | "residual" | "split";
  /** Whether a bias is added to the dot products; with `split`, matmulReduce adds it. Default: no. */
  readonly bias?: boolean;
  /**
   * Tile size; changes no result. `medium` reads less, `small` makes more workgroups of few rows; `lean` has twice the
   * invocations of `medium`, for calls with few workgroups. On an H100 tiles of 128 x 128 were no faster than `medium`
   * at any row count (tests/bench/LOG.md).
   */
  readonly tile: keyof typeof TILES;
}

/** Decisions. Tile sizes: outputs of a workgroup, outputs of an invocation, vectors of 4 along k in a step. */
export const TILES = {
  small: { tileRows: 32, tileColumns: 32, rowsEach: 4, columnsEach: 4, depth: 4 },
  lean: { tileRows: 64, tileColumns: 64, rowsEach: 8, columnsEach: 4, depth: 4 },
  medium: { tileRows: 64, tileColumns: 64, rowsEach: 8, columnsEach: 8, depth: 2 },
} as const;

/** Vectors of 4 in a stretch of k that is not split: a multiple of every tile's depth. */
const STRETCH = 4;

/** Row counts up to which decode splits k, each with decisions of its own. */
const SPLIT_ROWS: readonly number[] = [32, 64, 128, 256, 512];

/** Decisions of {@linkcode splitDecisions}, made on an H100 (tests/bench/LOG.md). */
const SPLIT_FROM = 1024;
const SPLIT_WORKGROUPS = 1024;
const SPLIT_LENGTH = 256;
const MOST_SPLITS = 16;

/**
 * Tile and splits of k with which enough workgroups share the work of up to 512 rows; `splits` is 1 where there are enough
 * without. They follow from the sizes alone, never from the device: calls for up to 32 rows are split alike, and so are
 * those for up to 64, 128, 256 and 512, but the same row may get other bits from one of these than from another.
 */
export function splitDecisions(
  { rows, k, n }: { rows: number; k: number; n: number },
): { tile: MatmulSpec["tile"]; splits: number } {
  const most = SPLIT_ROWS.find((bucket) => rows <= bucket);
  if (most === undefined) return { tile: "medium", splits: 1 };
  if (k < SPLIT_FROM) return { tile: most <= 128 ? "small" : "medium", splits: 1 };
  const tile = most <= TILES.small.tileRows ? "small" : "lean";
  const tiles = Math.ceil(most / TILES[tile].tileRows) * Math.ceil(n / TILES[tile].tileColumns);
  const splits = Math.min(Math.ceil(SPLIT_WORKGROUPS / tiles), Math.floor(k / SPLIT_LENGTH), MOST_SPLITS);
  return { tile: splits === 1 && most > 128 ? "medium" : tile, splits };
}

/**
 * out = x wᵀ (+ bias) (+ residual) for many rows. Bindings `x` [rows, inputStride] f32, `w` [.., k] stored as `dtype`,
 * `bias` [..] f32 (column j takes number `firstBias + j`), `residual` (as `out`), `out` [rows, outputStride] f32; `x` and
 * `w` are bound as vectors of 4 when `vectorized`.
 *
 * With `split` it takes a parameter `splits` more, and `out` is [splits, rows, outputStride]: the sums over each part
 * of k, which matmulReduce adds.
 */
export function matmul(spec: MatmulSpec): Kernel {
  const { dtype, vectorized, epilogue, bias = false, tile } = spec;
  const { tileRows, tileColumns, rowsEach, columnsEach, depth } = TILES[tile];
  const across = tileColumns / columnsEach;
  const down = tileRows / rowsEach;
  const threads = across * down;
  // With this padding, 8 neighbours that write `depth` vectors of 8 / depth lines meet 8 different banks.
  const padding = 8 / depth;
  const xLine = tileRows + padding;
  const wLine = tileColumns + padding;
  const xLoads = tileRows * depth / threads;
  const wLoads = tileColumns * depth / threads;
  const split = epilogue === "split";

  // Vector `chunk` of a line that starts at element `line`; zero from k on.
  const load = (array: string, scalar: string): string =>
    vectorized
      ? `let last = params.k / 4u - 1u;
  return select(vec4<f32>(), vec4<f32>(${array}[line / 4u + min(chunk, last)]), chunk <= last);`
      : `let first = 4u * chunk;
  let last = params.k - 1u;
  ${
        unroll(
          4,
          (i) =>
            `let v${i} = select(0.0, ${scalar}(${array}[line + min(first + ${i}u, last)]), first + ${i}u <= last);`,
        )
      }
  return vec4<f32>(v0, v1, v2, v3);`;

  const products = (i: number, j: number): string =>
    ["x", "y", "z", "w"].map((c) => `s${i}_${j} = fma(a${i}.${c}, b${j}.${c}, s${i}_${j});`).join(" ");

  const body = `
var<workgroup> xTile: array<vec4<f32>, ${depth * xLine}>;
var<workgroup> wTile: array<vec4<f32>, ${depth * wLine}>;
fn loadX(line: u32, chunk: u32) -> vec4<f32> {
  ${load("x", "f32")}
}
fn loadW(line: u32, chunk: u32) -> vec4<f32> {
  ${load("w", "f32")}
}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let tx = local % ${across}u;
  let ty = local / ${across}u;
  let firstRow = group.x * ${tileRows}u;
  let firstColumn = group.y * ${tileColumns}u;
  // What this invocation loads: one vector of each of these lines. Lines over the edge repeat the last one.
  let part = local % ${depth}u;
  let line = local / ${depth}u;
  ${
    unroll(xLoads, (i) =>
      `let xLine${i} = min(firstRow + line + ${
        i * threads / depth
      }u, params.rows - 1u) * params.inputStride;`)
  }
  ${
    unroll(wLoads, (i) =>
      `let wLine${i} = (params.firstRow + min(firstColumn + line + ${
        i * threads / depth
      }u, params.n - 1u)) * params.k;`)
  }
  ${unroll(rowsEach, (i) => unroll(columnsEach, (j) => `var s${i}_${j} = 0.0;`))}
  ${
    split
      ? `let stretches = (params.k + ${4 * STRETCH - 1}u) / ${4 * STRETCH}u;
  let first = group.z * stretches / params.splits * ${STRETCH}u;
  let chunks = (group.z + 1u) * stretches / params.splits * ${STRETCH}u;`
      : "let chunks = (params.k + 3u) / 4u;"
  }
  ${unroll(xLoads, (i) => `var nextX${i} = loadX(xLine${i}, ${split ? "first + part" : "part"});`)}
  ${unroll(wLoads, (i) => `var nextW${i} = loadW(wLine${i}, ${split ? "first + part" : "part"});`)}
  for (var chunk = ${split ? "first" : "0u"}; chunk < chunks; chunk += ${depth}u) {
    workgroupBarrier();
    ${unroll(xLoads, (i) => `xTile[part * ${xLine}u + line + ${i * threads / depth}u] = nextX${i};`)}
    ${unroll(wLoads, (i) => `wTile[part * ${wLine}u + line + ${i * threads / depth}u] = nextW${i};`)}
    workgroupBarrier();
    ${unroll(xLoads, (i) => `nextX${i} = loadX(xLine${i}, chunk + ${depth}u + part);`)}
    ${unroll(wLoads, (i) => `nextW${i} = loadW(wLine${i}, chunk + ${depth}u + part);`)}
    ${
    unroll(depth, (k) =>
      `{
      ${unroll(rowsEach, (i) => `let a${i} = xTile[${k * xLine + i * down}u + ty];`)}
      ${unroll(columnsEach, (j) => `let b${j} = wTile[${k * wLine + j * across}u + tx];`)}
      ${unroll(rowsEach, (i) => unroll(columnsEach, (j) => products(i, j)))}
    }`)
  }
  }
  ${
    unroll(rowsEach, (i) =>
      `{
    let row = firstRow + ty + ${i * down}u;
    if (row < params.rows) {
      ${
        unroll(columnsEach, (j) =>
          `{
        let column = firstColumn + tx + ${j * across}u;
        let index = ${
            split ? "(group.z * params.rows + row)" : "row"
          } * params.outputStride + params.outputOffset + column;
        if (column < params.n) { out[index] = ${epilogue === "residual" ? "residual[index] + " : ""}${
            bias ? `(s${i}_${j} + bias[params.firstBias + column])` : `s${i}_${j}`
          }; }
      }`)
      }
    }
  }`)
  }
}
`;
  return defineKernel({
    name: `matmul ${dtype} ${vectorized ? "x4" : "x1"} ${tile}${bias ? " bias" : ""} ${epilogue}`,
    f16: dtype === "f16",
    parameters: {
      rows: "u32",
      k: "u32",
      n: "u32",
      inputStride: "u32",
      outputStride: "u32",
      outputOffset: "u32",
      firstRow: "u32",
      ...(split ? { splits: "u32" as const } : {}),
      ...(bias ? { firstBias: "u32" as const } : {}),
    },
    bindings: [
      read("x", vectorized ? "array<vec4<f32>>" : "array<f32>"),
      read("w", vectorized ? `array<vec4<${dtype}>>` : `array<${dtype}>`),
      ...(bias ? [read("bias", "array<f32>")] : []),
      ...(epilogue === "residual" ? [read("residual", "array<f32>")] : []),
      write("out", "array<f32>"),
    ],
    // Rows first: workgroups that run side by side share weight rows.
    grid: ({ rows, n, splits = 1 }) => [Math.ceil(rows / tileRows), Math.ceil(n / tileColumns), splits],
    body,
  });
}
