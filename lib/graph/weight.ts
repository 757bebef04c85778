// Weights as plain descriptions: a matrix in storage type, and ranges of its rows. A plan names them; the buffers
// stand in a store, so that a plan can be made and printed without a GPU.

import type { StorageType } from "../../wgsl/kernel.ts";

/** A matrix [rows, columns] as stored on the GPU, row-major, `[out, in]` as checkpoints are. */
export interface Weight {
  /** Unique name in its model. */
  readonly name: string;
  /** Output features. */
  readonly rows: number;
  /** Input features. */
  readonly columns: number;
  /** Storage type. */
  readonly dtype: StorageType;
}

/** A range of rows of a weight, for example the keys' part of a fused query-key-value weight. */
export interface WeightView {
  /** The weight. */
  readonly weight: Weight;
  /** First row. */
  readonly first: number;
  /** Number of rows. */
  readonly rows: number;
}

/** One buffer of a weight that is over the binding limit. */
export interface WeightPart {
  /** First row. */
  readonly first: number;
  /** Number of rows. */
  readonly rows: number;
}

/** Bytes of one stored element. */
export function storageBytes(dtype: StorageType): number {
  return dtype === "f16" ? 2 : 4;
}

/** Bytes of a weight. */
export function weightBytes(weight: Weight): number {
  return weight.rows * weight.columns * storageBytes(weight.dtype);
}

/** The whole weight as a view. */
export function whole(weight: Weight): WeightView {
  return { weight, first: 0, rows: weight.rows };
}

/**
 * Splits a weight by rows so that every part fits a binding of `bindingBytes`.
 *
 * @throws {RangeError} when a single row is over the limit.
 */
export function weightParts(weight: Weight, bindingBytes: number): WeightPart[] {
  const rowBytes = weight.columns * storageBytes(weight.dtype);
  const most = Math.floor(bindingBytes / rowBytes);
  if (most < 1) {
    throw new RangeError(
      `Weight ${weight.name} has rows of ${rowBytes} bytes, over this device's binding limit of ${bindingBytes} bytes`,
    );
  }
  // Even parts, at multiples of 8 rows as far as the limit leaves room: most chunks then begin on whole words.
  const count = Math.ceil(weight.rows / most);
  const rows = count === 1
    ? weight.rows
    : Math.max(1, Math.min(most, Math.ceil(weight.rows / count / 8) * 8));
  const parts: WeightPart[] = [];
  for (let first = 0; first < weight.rows; first += rows) {
    parts.push({ first, rows: Math.min(rows, weight.rows - first) });
  }
  return parts;
}
