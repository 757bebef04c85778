// Linear of a batch's decode step: k split into parts, summed apart and added by a second kernel.

import {
  type Emit,
  placementOf,
  type Value,
  valueOperand,
  weightOperand,
  type WeightView,
} from "../graph/mod.ts";
import { type MatmulSpec, splitDecisions } from "../../wgsl/matmul.ts";
import { matmulReduce } from "../../wgsl/matmul_reduce.ts";

/** Sums over parts of k. */
export interface PartialSums {
  /** A scratch value of [splits, rows, columns of the output]; its first `splits · rows · columns` numbers are used. */
  readonly value: Value;
  /** Parts of k, at least 2. */
  readonly splits: number;
}

/** How a linear of many rows is computed. */
export interface ManyRows {
  /** The matmul's tile. */
  readonly tile: MatmulSpec["tile"];
  /** Where its sums go when k is split. */
  readonly sums?: PartialSums;
}

/**
 * Chooses tile and splits from the sizes alone. Only decode is split: how many rows a step of prefill takes depends on
 * the other prompts, and these must not change a row's bits where kernels are the same for every batch.
 */
export function manyRows(emit: Emit, { rows }: Value, { weight, rows: n }: WeightView): ManyRows {
  const { target, trace } = emit;
  const { capacity } = rows;
  if (target.phase === "prefill") return { tile: capacity <= 128 ? "small" : "medium" };
  const { tile, splits: wanted } = splitDecisions({ rows: capacity, k: weight.columns, n });
  // In the way of no real limit: where k is split, the sums take less than 32 MiB.
  const splits = Math.min(wanted, Math.floor(target.bindingBytes / (capacity * n * 4)));
  return splits > 1
    ? { tile, sums: { value: trace.value("partial sums", rows, splits * n), splits } }
    : { tile };
}

/** What is added to whole sums. */
export interface Added {
  /** The linear's bias. */
  readonly bias: WeightView | undefined;
  /** A value of the output's shape. */
  readonly residual: Value | undefined;
}

/** Adds the sums over the parts of k, and bias and residual if there are any. */
export function addSums(
  emit: Emit,
  { value, splits }: PartialSums,
  { bias, residual }: Added,
  y: Value,
): void {
  const { offset, stride } = placementOf(y);
  emit.dispatch(
    matmulReduce({ splits, epilogue: residual ? "residual" : "none", bias: bias !== undefined }),
    [
      valueOperand(value),
      ...(bias ? [weightOperand(bias.weight)] : []),
      ...(residual ? [valueOperand(residual)] : []),
      valueOperand(y),
    ],
    (counts) => ({
      rows: counts[y.rows.name],
      n: y.width,
      outputStride: stride,
      outputOffset: offset,
      firstBias: bias?.first ?? 0,
    }),
  );
}
