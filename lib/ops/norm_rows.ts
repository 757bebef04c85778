// Norms of rows: RMSNorm and LayerNorm, of the whole row or of parts of it, with or without parameters.

import {
  denseOperand,
  type OpDefinition,
  type Trace,
  type Value,
  valueOperand,
  type Weight,
  weightOperand,
} from "../graph/mod.ts";
import { normRows as normRowsKernel } from "../../wgsl/norm_rows.ts";
import { workgroupThreads } from "../../wgsl/threads.ts";
import { rmsNorm } from "./rms_norm.ts";

/** Options of {@linkcode normRows}. */
export interface NormRowsOptions {
  /** `rms`: x / sqrt(mean(x²)) (Zhang and Sennrich 2019); `layer`: of x - mean(x) (Ba et al. 2016). */
  readonly kind: "rms" | "layer";
  /** Keeps the divisor from zero. */
  readonly epsilon: number;
  /** Whether it is added to the mean of squares inside of the root, or to the root. Default: `inside`. */
  readonly epsilonPlacement?: "inside" | "additive";
  /** Equal parts of a row, such as heads, each normed by itself. Default: 1. */
  readonly groups?: number;
  /** Factor by column, f32: [1, width], or [1, width / groups] for all parts alike. */
  readonly weight?: Weight;
  /** Added in the end, of the weight's shape. */
  readonly bias?: Weight;
}

const normRowsOp: OpDefinition<NormRowsOptions> = {
  kind: "normRows",
  lower({ inputs: [x], outputs: [y], attributes }, emit): void {
    const { kind, epsilon, epsilonPlacement, groups = 1, weight, bias } = attributes;
    const width = x.width / groups;
    const kernel = normRowsKernel({
      kind,
      additive: epsilonPlacement === "additive",
      subgroups: emit.target.features.subgroups,
      vectorized: width % 4 === 0,
      affine: weight !== undefined,
      bias: bias !== undefined,
      threads: workgroupThreads(Math.ceil(width / 4)),
    });
    const shared = (weight ?? bias)?.columns === width;
    emit.dispatch(
      kernel,
      [
        denseOperand(x),
        ...(weight ? [weightOperand(weight)] : []),
        ...(bias ? [weightOperand(bias)] : []),
        valueOperand(y),
      ],
      (counts) => ({
        rows: counts[x.rows.name],
        width,
        groups,
        eps: epsilon,
        gainStride: shared ? 0 : width,
      }),
    );
  },
};

/**
 * Norm of each row, or of each of its `groups` parts.
 *
 * @throws {RangeError} when the width is no multiple of `groups`.
 * @throws {TypeError} when weight or bias is not one f32 row of the width of a row or a part.
 */
export function normRows(trace: Trace, x: Value, options: NormRowsOptions): Value {
  const { kind, epsilon, epsilonPlacement = "inside", groups = 1, weight, bias } = options;
  if (!Number.isInteger(groups) || groups < 1 || x.width % groups !== 0) {
    throw new RangeError(`normRows needs groups to divide a row of ${x.width}: current value is ${groups}`);
  }
  if (kind === "rms" && epsilonPlacement === "inside" && groups === 1 && !bias) {
    return rmsNorm(trace, x, weight, epsilon);
  }
  for (const parameter of [weight, bias]) {
    if (parameter) checkParameter(parameter, (weight ?? bias)!, x.width, groups);
  }
  const y = trace.value(`${kind}Norm`, x.rows, x.width);
  trace.append(normRowsOp, [x], [y], options);
  return y;
}

function checkParameter(
  { name, rows, columns, dtype }: Weight,
  first: Weight,
  width: number,
  groups: number,
) {
  if (rows !== 1 || columns !== first.columns || (columns !== width && columns !== width / groups)) {
    throw new TypeError(
      `normRows ${name} is [${rows}, ${columns}], its input rows of ${groups} parts need [1, ${width}] or ` +
        `[1, ${width / groups}], for weight and bias alike`,
    );
  }
  if (dtype !== "f32") {
    throw new TypeError(`normRows ${name} is stored as ${dtype}: norms are computed in f32, store it so`);
  }
}
