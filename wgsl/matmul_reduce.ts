// The sums that a split matmul left, added. One output an element, see elementwise.ts.
//
//   sums:  split 0 | row 0: columns | row 1: columns | ...        an element adds one column of one row over all splits,
//          split 1 | row 0: columns | row 1: columns | ...        in order; neighbours add neighbouring columns
//          ...
//
// The splits are few and compiled in, so that their loads wait for memory together.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";

/** Compiled-in choices of {@linkcode matmulReduce}. */
export interface MatmulReduceSpec {
  /** Parts into which k was split. */
  readonly splits: number;
  /** What follows the sum. */
  readonly epilogue: "none" | "residual";
  /** Whether a bias is added to the sum. Default: no. */
  readonly bias?: boolean;
}

/**
 * out[r, outputOffset + j] = sum over splits of sums[split, r, j] (+ bias[firstBias + j]) (+ residual). Bindings `sums`
 * [splits, rows, n], `bias` [..], `residual` (as `out`), `out` [rows, outputStride], all f32.
 */
export function matmulReduce({ splits, epilogue, bias = false }: MatmulReduceSpec): Kernel {
  const residual = epilogue === "residual";
  return defineKernel({
    name: `matmulReduce splits ${splits}${bias ? " bias" : ""} ${epilogue}`,
    parameters: {
      rows: "u32",
      n: "u32",
      outputStride: "u32",
      outputOffset: "u32",
      ...(bias ? { firstBias: "u32" as const } : {}),
    },
    bindings: [
      read("sums", "array<f32>"),
      ...(bias ? [read("bias", "array<f32>")] : []),
      ...(residual ? [read("residual", "array<f32>")] : []),
      write("out", "array<f32>"),
    ],
    grid: ({ rows, n }) => elementwiseGrid(rows * n),
    body: `
fn element(i: u32) {
  let index = i / params.n * params.outputStride + params.outputOffset + i % params.n;
  let size = params.rows * params.n;
  ${unroll(splits, (s) => `let s${s} = sums[${s}u * size + i];`)}
  ${residual ? "let added = residual[index];" : ""}
  var sum = s0;
  ${unroll(splits - 1, (s) => `sum += s${s + 1};`)}
  ${bias ? "sum += bias[params.firstBias + i % params.n];" : ""}
  out[index] = ${residual ? "added + sum" : "sum"};
}
${elementwiseMain("params.rows * params.n")}`,
  });
}
