// Embeddings of positions, added to those of tokens.

import {
  denseOperand,
  type OpDefinition,
  resource,
  type Trace,
  type Value,
  valueOperand,
  type Weight,
  weightOperand,
  weightParts,
} from "../graph/mod.ts";
import { positionEmbedding as positionEmbeddingKernel } from "../../wgsl/position_embedding.ts";
import { rotaryTable } from "./rotary.ts";
import { rowTable } from "./row_tables.ts";

/** Where embeddings of positions come from. */
export interface PositionTable {
  /** Learned embeddings [positions, width]; none are sines and cosines. */
  readonly table?: Weight;
  /** Added to a row's position, which counts from 0. Default: 0. */
  readonly offset?: number;
}

const learnedOp: OpDefinition<{ readonly table: Weight; readonly offset: number }> = {
  kind: "positionEmbedding",
  lower({ inputs: [x], outputs: [y], attributes: { table, offset } }, emit): void {
    const kernel = positionEmbeddingKernel({ kind: "learned", dtype: table.dtype });
    weightParts(table, emit.target.bindingBytes).forEach((part, index) => {
      emit.dispatch(
        kernel,
        [rowTable(x.rows), weightOperand(table, index), denseOperand(x), valueOperand(y)],
        (counts) => ({
          rows: counts[y.rows.name],
          width: y.width,
          offset,
          firstPosition: part.first,
          positionCount: part.rows,
          lastPosition: table.rows - 1,
        }),
      );
    });
  },
};

const sinusoidalOp: OpDefinition<{ readonly table: string; readonly offset: number }> = {
  kind: "positionEmbedding",
  lower({ inputs: [x], outputs: [y], attributes: { table, offset } }, emit): void {
    emit.dispatch(
      positionEmbeddingKernel({ kind: "sinusoidal" }),
      [rowTable(x.rows), resource(table), denseOperand(x), valueOperand(y)],
      (counts) => ({ rows: counts[y.rows.name], width: y.width, offset }),
    );
  },
};

/** Radians a position: from 1 down to 1/10000 in equal ratios, as tensor2tensor and fairseq have them. */
export function sinusoidalFrequencies(width: number): number[] {
  const half = Math.floor(width / 2);
  return Array.from({ length: half }, (_, i) => Math.exp(-Math.log(10000) * i / (half - 1)));
}

/**
 * x + embedding of each row's position; beyond the end of a table, that of its last one. Without a table it is [sin(p f) | cos(p f)] in halves (Vaswani et al. 2017, in the
 * form of tensor2tensor and fairseq), for any position.
 *
 * @throws {RangeError} when the offset is not from 0 on, or the width is under 4 without a table.
 * @throws {TypeError} when the table has another width.
 */
export function positionEmbedding(trace: Trace, x: Value, { table, offset = 0 }: PositionTable): Value {
  if (!Number.isInteger(offset) || offset < 0) {
    throw new RangeError(`positionEmbedding takes a whole offset from 0 on: current value is ${offset}`);
  }
  const y = trace.value("positionEmbedding", x.rows, x.width);
  if (table) {
    if (table.columns !== x.width) {
      throw new TypeError(
        `positionEmbedding ${table.name} is [${table.rows}, ${table.columns}], its input rows have ${x.width} numbers`,
      );
    }
    trace.append(learnedOp, [x], [y], { table, offset });
    return y;
  }
  if (x.width < 4) {
    throw new RangeError(`Sinusoidal embeddings need at least 4 numbers a row: current value is ${x.width}`);
  }
  const positions = trace.target.longest + offset;
  const frequencies = sinusoidalFrequencies(x.width);
  const name = `sinusoidal.${x.width}.${positions}`;
  trace.constants.set(
    name,
    () => rotaryTable({ name, layout: "half", size: 2 * frequencies.length, frequencies, positions }),
  );
  trace.append(sinusoidalOp, [x], [y], { table: name, offset });
  return y;
}
