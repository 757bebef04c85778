// Adds what a row's position stands for to its embedding. One output an element, see elementwise.ts.
//
//   learned      table row `position + offset`; a table over the binding limit is split by positions into parts, each with
//                a call of its own that leaves the rows of the other parts alone
//   sinusoidal   | sin(position · f0) sin(position · f1) ... | cos(position · f0) cos(position · f1) ... | 0 if width is odd |
//
// Angles come from a table made in f64: position = 256 * high + low, and cos and sin of the two parts are combined by the
// addition formulas, so that large positions are as exact as small ones.

import { elementwiseGrid, elementwiseMain } from "./elementwise.ts";
import { defineKernel, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { loadScalar, scalarArray } from "./load.ts";
import { FINE_POSITIONS } from "./rope_store.ts";
import { ROW_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode positionEmbedding}. */
export type PositionEmbeddingSpec =
  | { readonly kind: "sinusoidal" }
  | {
    readonly kind: "learned";
    /** Storage type of the table. */
    readonly dtype: StorageType;
  };

const LEARNED = (dtype: StorageType): string => `
  let index = min(position, params.lastPosition) - params.firstPosition;
  if (index >= params.positionCount) { return; }
  out[i] = x[i] + ${loadScalar(dtype, "table", "index * params.width + column")};`;

const SINUSOIDAL = `
  let pairs = params.width / 2u;
  if (column >= 2u * pairs) {
    out[i] = x[i];
    return;
  }
  let pair = column % pairs;
  let low = table[position % ${FINE_POSITIONS}u * pairs + pair];
  let high = table[(${FINE_POSITIONS}u + position / ${FINE_POSITIONS}u) * pairs + pair];
  let sine = low.y * high.x + low.x * high.y;
  let cosine = low.x * high.x - low.y * high.y;
  out[i] = x[i] + select(cosine, sine, column < pairs);`;

/**
 * out = x + embedding of (position + offset). Bindings `rowTable` [rows] of Row, `table`, `x` and `out` [rows, width] f32.
 * `table` is [positionCount, width] stored as `dtype`, the embeddings from position `firstPosition` on; positions beyond
 * `lastPosition` take that one. For `sinusoidal` it is (cos, sin) as ropeStore has it, of width / 2 pairs.
 */
export function positionEmbedding(spec: PositionEmbeddingSpec): Kernel {
  const learned = spec.kind === "learned";
  return defineKernel({
    name: `positionEmbedding ${spec.kind}${learned ? ` ${spec.dtype}` : ""}`,
    f16: learned && spec.dtype === "f16",
    parameters: {
      rows: "u32",
      width: "u32",
      offset: "u32",
      ...(learned
        ? { firstPosition: "u32" as const, positionCount: "u32" as const, lastPosition: "u32" as const }
        : {}),
    },
    bindings: [
      read("rowTable", "array<Row>"),
      read("table", learned ? scalarArray(spec.dtype) : "array<vec2<f32>>"),
      read("x", "array<f32>"),
      write("out", "array<f32>"),
    ],
    grid: ({ rows, width }) => elementwiseGrid(rows * width),
    body: `
${ROW_STRUCT}
fn element(i: u32) {
  let row = i / params.width;
  let column = i - row * params.width;
  let position = rowTable[row].position + params.offset;${learned ? LEARNED(spec.dtype) : SINUSOIDAL}
}
${elementwiseMain("params.rows * params.width")}`,
  });
}
