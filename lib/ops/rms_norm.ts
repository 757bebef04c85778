// RMSNorm: x / sqrt(mean(x²) + ε) · w (Zhang and Sennrich 2019); without w it is SimpleRMSNorm.

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

/** Arguments of an RMSNorm. */
export interface RmsNormAttributes {
  /** Scale by column, f32; none is SimpleRMSNorm. */
  readonly weight?: Weight;
  /** Added to the mean of squares. */
  readonly epsilon: number;
}

/** The RMSNorm operation. */
export const rmsNormOp: OpDefinition<RmsNormAttributes> = {
  kind: "rmsNorm",
  lower({ inputs: [x], outputs: [y], attributes: { weight, epsilon } }, emit): void {
    const kernel = normRowsKernel({
      kind: "rms",
      subgroups: emit.target.features.subgroups,
      vectorized: x.width % 4 === 0,
      affine: weight !== undefined,
      threads: workgroupThreads(Math.ceil(x.width / 4)),
    });
    emit.dispatch(
      kernel,
      [denseOperand(x), ...(weight ? [weightOperand(weight)] : []), valueOperand(y)],
      (counts) => ({ rows: counts[x.rows.name], width: x.width, groups: 1, gainStride: 0, eps: epsilon }),
    );
  },
};

/**
 * RMSNorm of each row.
 *
 * @throws {TypeError} when the weight is not one f32 row of the same width.
 */
export function rmsNorm(trace: Trace, x: Value, weight: Weight | undefined, epsilon: number): Value {
  if (weight && (weight.columns !== x.width || weight.rows !== 1)) {
    throw new TypeError(
      `rmsNorm ${weight.name} is [${weight.rows}, ${weight.columns}], its input rows need [1, ${x.width}]`,
    );
  }
  if (weight && weight.dtype !== "f32") {
    throw new TypeError(
      `rmsNorm ${weight.name} is stored as ${weight.dtype}: norms are computed in f32, store it so`,
    );
  }
  const y = trace.value("rmsNorm", x.rows, x.width);
  trace.append(rmsNormOp, [x], [y], weight ? { weight, epsilon } : { epsilon });
  return y;
}
