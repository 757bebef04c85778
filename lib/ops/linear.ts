// y = x Wᵀ + b: matrix-vector kernels for few rows, register tiles for many; may take a norm before, a residual or a gated
// linear unit after.

import {
  type Emit,
  type OpDefinition,
  type Operand,
  placementOf,
  type Rows,
  type Trace,
  type Value,
  valueOperand,
  type Weight,
  weightOperand,
  type WeightPart,
  weightParts,
  type WeightView,
} from "../graph/mod.ts";
import type { Activation } from "../../wgsl/activations.ts";
import type { Kernel } from "../../wgsl/kernel.ts";
import { matmul } from "../../wgsl/matmul.ts";
import { matvec, matvecDecisions, type MatvecSpec } from "../../wgsl/matvec.ts";
import { addSums, type ManyRows, manyRows } from "./linear_splits.ts";

/** Arguments of a linear operation; all but `view` are set by fusion. */
export interface LinearAttributes {
  /** Rows of the weight, one an output column. */
  readonly view: WeightView;
  /** Added to the product: a range of numbers of one f32 row. */
  readonly bias?: WeightView;
  /** RMSNorm of the input row, computed by the same kernel (few rows only). */
  readonly norm?: { readonly weight?: Weight; readonly epsilon: number };
  /** The second input is added to the product. */
  readonly residual?: boolean;
  /** Gated linear unit: `view` is the gate, this the up projection (few rows only). */
  readonly up?: {
    readonly view: WeightView;
    /** Of the same weight as the gate's. */
    readonly bias?: WeightView;
    readonly activation: Activation;
  };
}

/** The linear operation. Inputs: x, and the residual when fused. */
export const linearOp: OpDefinition<LinearAttributes> = {
  kind: "linear",
  lower(operation, emit): void {
    const { attributes: { view, bias }, inputs: [x, residual], outputs: [y] } = operation;
    const many = x.rows.thin ? undefined : manyRows(emit, x, view);
    weightParts(view.weight, emit.target.bindingBytes).forEach((part, index) => {
      const first = Math.max(view.first, part.first);
      const last = Math.min(view.first + view.rows, part.first + part.rows);
      if (first < last) lowerPart(operation, emit, part, index, first, last - first, many);
    });
    if (many?.sums) addSums(emit, many.sums, { bias, residual }, y);
  },
};

function lowerPart(
  operation: Parameters<typeof linearOp.lower>[0],
  emit: Emit,
  part: WeightPart,
  index: number,
  first: number,
  columns: number,
  many: ManyRows | undefined,
): void {
  const [x] = operation.inputs;
  const { view, norm, up } = operation.attributes;
  const { weight } = view;
  const sums = many?.sums;
  // Bias and residual are added to whole sums.
  const residual = sums ? undefined : operation.inputs[1];
  const bias = sums ? undefined : operation.attributes.bias;
  const input = placementOf(x);
  const output = sums ? { offset: 0, stride: view.rows } : placementOf(operation.outputs[0]);
  if (input.offset !== 0) {
    throw new TypeError(`linear ${weight.name} reads a view at column ${input.offset}: gather it first`);
  }
  const operands: Operand[] = [valueOperand(x), weightOperand(weight, index)];
  if (norm?.weight) operands.push(weightOperand(norm.weight));
  if (bias) operands.push(weightOperand(bias.weight));
  if (residual) operands.push(valueOperand(residual));
  operands.push(valueOperand(sums?.value ?? operation.outputs[0]));
  const numbers = {
    k: weight.columns,
    n: columns,
    inputStride: input.stride,
    outputStride: output.stride,
    outputOffset: output.offset + first - view.first,
    firstRow: first - part.first,
    upRow: up ? up.view.first - part.first + (first - view.first) : 0,
    firstBias: bias ? bias.first + (first - view.first) : 0,
    upBias: up?.bias ? up.bias.first + (first - view.first) : 0,
    eps: norm?.epsilon ?? 0,
    splits: sums?.splits ?? 1,
  };
  const kernel = many
    ? matmul({
      dtype: weight.dtype,
      vectorized: weight.columns % 4 === 0 && input.stride % 4 === 0,
      epilogue: sums ? "split" : residual ? "residual" : "none",
      bias: bias !== undefined,
      tile: many.tile,
    })
    : matvecFor(emit, operation.attributes, x.rows, input.stride, residual !== undefined);
  emit.dispatch(kernel, operands, (counts) => ({ ...numbers, rows: counts[x.rows.name] }));
}

function matvecFor(
  emit: Emit,
  { view: { weight }, bias, norm, up }: LinearAttributes,
  rows: Rows,
  inputStride: number,
  residual: boolean,
): Kernel {
  const { columns: k, dtype } = weight;
  const fits = (length: number) => k % length === 0 && inputStride % length === 0;
  const vector: MatvecSpec["vector"] = dtype === "f16" && fits(8) ? 8 : fits(4) ? 4 : 1;
  const spec = {
    vector,
    rowsPerPass: rowsPerPass(rows),
    epilogue: up ? "glu" as const : residual ? "residual" as const : "none" as const,
  };
  return matvec({
    dtype,
    subgroups: emit.target.features.subgroups,
    norm: norm !== undefined,
    affine: norm?.weight !== undefined,
    bias: bias !== undefined,
    ...(up ? { activation: up.activation } : {}),
    ...spec,
    ...matvecDecisions({ ...spec, k }),
  });
}

function rowsPerPass(rows: Rows): MatvecSpec["rowsPerPass"] {
  return rows.capacity <= 1 ? 1 : rows.capacity <= 2 ? 2 : rows.capacity <= 4 ? 4 : 8;
}

/**
 * y[r, n] = Σ_k x[r, k] · W[n, k] (+ b[n]). A bias is a range of numbers of an f32 weight [1, ..]; biases of adjacent ranges
 * of a weight that are adjacent themselves let these be computed as one.
 *
 * @throws {TypeError} when the widths do not fit, or the view or the bias is not inside of its weight.
 */
export function linear(
  trace: Trace,
  x: Value,
  view: WeightView,
  name: string = view.weight.name,
  bias?: WeightView,
): Value {
  if (x.width !== view.weight.columns) {
    throw new TypeError(
      `linear ${view.weight.name} takes rows of ${view.weight.columns} numbers, its input has ${x.width}`,
    );
  }
  if (view.rows < 1 || view.first < 0 || view.first + view.rows > view.weight.rows) {
    throw new TypeError(
      `linear ${view.weight.name} has ${view.weight.rows} rows: a view of ${view.rows} from ${view.first} on is not inside`,
    );
  }
  if (bias) checkBias(view, bias);
  const y = trace.value(name, x.rows, view.rows);
  trace.append(linearOp, [x], [y], bias ? { view, bias } : { view });
  return y;
}

function checkBias(view: WeightView, { weight, first, rows }: WeightView): void {
  if (weight.rows !== 1 || weight.dtype !== "f32") {
    throw new TypeError(
      `linear ${view.weight.name}: its bias ${weight.name} is [${weight.rows}, ${weight.columns}] as ${weight.dtype}, ` +
        "it must be one row of f32",
    );
  }
  if (rows !== view.rows || first < 0 || first + rows > weight.columns) {
    throw new TypeError(
      `linear ${view.weight.name} takes ${view.rows} numbers of its bias ${weight.name} of ${weight.columns}: ` +
        `current range is ${rows} from ${first} on`,
    );
  }
}
