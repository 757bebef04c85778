// Token embedding: a gather of rows of the table, by the step's tokens or, in decode, by what was sampled last.

import {
  type OpDefinition,
  resource,
  type Trace,
  type Value,
  valueOperand,
  type Weight,
  weightOperand,
  weightParts,
} from "../graph/mod.ts";
import { embedding as embeddingKernel } from "../../wgsl/embedding.ts";

/** The embedding operation. In decode it also writes each row's token and position into the row table. */
const embeddingOp: OpDefinition<{ readonly table: Weight; readonly scale?: number }> = {
  kind: "embedding",
  lower({ outputs, attributes }, emit): void {
    const { table, scale } = attributes;
    const fromState = emit.target.phase === "decode";
    const kernel = embeddingKernel({
      dtype: table.dtype,
      fromState,
      scale: scale !== undefined,
      vectorized: table.columns % 4 === 0,
    });
    weightParts(table, emit.target.bindingBytes).forEach((part, index) => {
      emit.dispatch(
        kernel,
        [
          resource("rows"),
          ...(fromState ? [resource("states")] : []),
          weightOperand(table, index),
          valueOperand(outputs[0]),
        ],
        (counts) => ({
          rows: counts[outputs[0].rows.name],
          width: table.columns,
          firstId: part.first,
          idCount: part.rows,
          scale: scale ?? 1,
        }),
      );
    });
  },
};

/** Rows of the table [vocabulary, width] for the step's tokens, times `scale`. */
export function embedding(trace: Trace, table: Weight, scale?: number): Value {
  const x = trace.value("embedding", trace.target.rows, table.columns);
  trace.append(embeddingOp, [], [x], scale === undefined ? { table } : { table, scale });
  return x;
}
