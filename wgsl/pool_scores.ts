// Scores of a sequence's context, summed over heads and smoothed over neighbours. One output an invocation:
//
//   workgroup (x, head, sequence): | columns 256 x ... 256 x + 255 of the sequence's context |
//   invocation t:                  column j = 256 x + t, from columns j - half ... j + half

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode poolScores}. */
export interface PoolScoresSpec {
  /** Whether every KV head keeps its own scores or one sum over the heads remains. */
  readonly heads: "each" | "sum";
  /** How a column's neighbours are put together. */
  readonly pool: "none" | "mean" | "max";
  /** Whether the window's columns are put together like the context's. Default: they are left alone. */
  readonly whole?: boolean;
}

const THREADS = 256;

/**
 * `out[head * stride + first + j]` for the columns j below `count - window` of each sequence, from `scores` of the same
 * layout; other elements are left alone. With heads `sum`, the KV heads are added in order first and head is 0. Then the
 * columns from `j - width / 2` to `j + width / 2` (`width` is odd) are pooled: `mean` divides their sum by `width`, where
 * those outside the context count 0; `max` takes the largest of those inside; `none` takes column j alone.
 *
 * `columns` is at least the largest `count - window`. With `whole`, all `count` rows are the context.
 */
export function poolScores(spec: PoolScoresSpec): Kernel {
  const { heads, pool, whole = false } = spec;
  const sum = heads === "sum";
  const column = sum
    ? `fn columnScore(column: u32, head: u32) -> f32 {
  var sum = scores[column];
  for (var h = 1u; h < params.kvHeads; h++) { sum += scores[h * params.stride + column]; }
  return sum;
}`
    : "fn columnScore(column: u32, head: u32) -> f32 { return scores[head * params.stride + column]; }";
  const pooled = pool === "none"
    ? "let pooled = columnScore(selection.first + j, head);"
    : `let half = params.width / 2u;
  let end = min(j + half + 1u, context);
  var i = j - min(half, j);
  var pooled = columnScore(selection.first + i, head);
  for (i++; i < end; i++) {
    let score = columnScore(selection.first + i, head);
    pooled = ${pool === "mean" ? "pooled + score" : "max(pooled, score)"};
  }
  ${pool === "mean" ? "pooled /= f32(params.width);" : ""}`;
  return defineKernel({
    name: `poolScores ${heads} ${pool}${whole ? " whole" : ""}`,
    parameters: { columns: "u32", kvHeads: "u32", sequences: "u32", width: "u32", stride: "u32" },
    bindings: [
      read("scores", "array<f32>"),
      read("selections", "array<Selection>"),
      write("out", "array<f32>"),
    ],
    grid: ({ columns, kvHeads, sequences }) => [
      Math.max(1, Math.ceil(columns / THREADS)),
      sum ? 1 : kvHeads,
      sequences,
    ],
    body: `
${SELECTION_STRUCT}
${column}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let j = group.x * ${THREADS}u + local;
  let head = group.y;
  let selection = selections[group.z];
  let context = selection.count${whole ? "" : " - min(selection.window, selection.count)"};
  if (j >= context) { return; }
  ${pooled}
  out[head * params.stride + selection.first + j] = pooled;
}
`,
  });
}
