// What the ops share that keep a matrix [keySize, valueSize] for each KV head: the delta rule and gated linear attention.

import { type Counts, placementOf, type Rows, type Target, type Value } from "../graph/mod.ts";
import { checkStateHeadSizes } from "../../wgsl/state_heads.ts";
import type { RecurrentState } from "./recurrent_state.ts";

/** Heads of attention with a recurrent state. */
export interface StateHeads {
  /** Query heads, a multiple of `kvHeads`. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Numbers in a query or key of one head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Numbers in a value of one head, a multiple of 4 up to 256. */
  readonly valueSize: number;
}

/**
 * Numbers of the state of a sequence.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function stateHeadWords(heads: StateHeads): number {
  checkStateHeadSizes(heads);
  return heads.kvHeads * heads.keySize * heads.valueSize;
}

/**
 * Checks queries, keys and values, and gates of `gateWidth` columns, against the heads and the state.
 *
 * @throws {RangeError} when a size does not fit.
 * @throws {TypeError} when something does not fit together.
 */
export function checkStateHeads(
  op: string,
  heads: StateHeads,
  state: RecurrentState,
  projections: { readonly q: Value; readonly k: Value; readonly v: Value },
  gates: Readonly<Record<string, Value>>,
  gateWidth: number,
): void {
  const words = stateHeadWords(heads);
  const { kvHeads, keySize, valueSize } = heads;
  if (
    !(Number.isInteger(kvHeads) && kvHeads > 0 && Number.isInteger(heads.heads / kvHeads) && heads.heads > 0)
  ) {
    throw new TypeError(
      `${op} needs query heads in groups of equal size: ${heads.heads} heads for ${kvHeads} KV heads`,
    );
  }
  if (state.words !== words) {
    throw new TypeError(
      `${op} keeps ${words} numbers a sequence (${kvHeads} KV heads of ${keySize} × ${valueSize}): its state has ${state.words}`,
    );
  }
  const widths: Record<string, number> = {
    q: heads.heads * keySize,
    k: kvHeads * keySize,
    v: kvHeads * valueSize,
    ...Object.fromEntries(Object.keys(gates).map((name) => [name, gateWidth])),
  };
  for (const [name, value] of Object.entries({ ...projections, ...gates })) {
    if (value.width !== widths[name] || value.rows !== projections.q.rows) {
      throw new TypeError(
        `${op} takes ${name} as [${projections.q.rows.name}, ${
          widths[name]
        }]: it is [${value.rows.name}, ${value.width}]`,
      );
    }
  }
}

/**
 * Strides and offsets as kernel parameters `NAMEStride` and `NAMEOffset`. They are known when an operation is lowered: fusion
 * may have made views of its inputs.
 *
 * @throws {TypeError} when queries, keys or values do not stand in words of 4 numbers.
 */
export function placements(values: Readonly<Record<string, Value | undefined>>): Record<string, number> {
  const numbers: Record<string, number> = {};
  for (const [name, value] of Object.entries(values)) {
    if (!value) continue;
    const { stride, offset, root } = placementOf(value);
    if (["q", "k", "v"].includes(name) && (offset % 4 !== 0 || stride % 4 !== 0)) {
      throw new TypeError(
        `Attention with a recurrent state reads ${name} in words of 4 numbers: it stands at column ${offset} of the ${stride} ` +
          `of ${root.name}, of which one is no multiple of 4; give gates a weight of their own`,
      );
    }
    numbers[`${name}Stride`] = stride;
    numbers[`${name}Offset`] = offset;
  }
  return numbers;
}

/** How kernels that take rows one by one find them, and how many workgroups that makes. */
export function recurrentItems(
  target: Target,
  rows: Rows,
): { readonly table: "rows" | "spans"; readonly items: (counts: Counts) => number } {
  // A row of a decode step is the only one of its sequence.
  return target.phase === "decode"
    ? { table: "rows", items: (counts) => counts[rows.name] }
    : { table: "spans", items: () => target.sequences };
}
