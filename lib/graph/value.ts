// Symbolic values: what layers pass to each other while a model is traced. Knows rows and widths, not what they mean.

/**
 * A set of rows that values share: the rows of a step, the rows whose logits are wanted, or what a pruning core left.
 * How many there are in a step is told when the plan is replayed, under `name`.
 */
export interface Rows {
  /** Key of the row count in {@linkcode Counts}. */
  readonly name: string;
  /** Rows the plan's buffers are made for. */
  readonly capacity: number;
  /** Few rows: matrix-vector kernels and split-K attention instead of tiles. */
  readonly thin: boolean;
  /** Rows these were taken from, and the table that maps each of these to one of those; none for a step's own rows. */
  readonly from?: { readonly rows: Rows; readonly map: string };
}

/** A matrix of f32: one row a token, `width` columns. */
export interface Value {
  /** Number, unique in a trace. */
  readonly id: number;
  /** Readable name, for printed plans. */
  readonly name: string;
  /** Its rows. */
  readonly rows: Rows;
  /** Number of columns. */
  readonly width: number;
  /** Set by lowering when the value is a range of columns of another one's buffer. */
  view?: { readonly of: Value; readonly offset: number };
}

/** Where a value's columns stand. */
export interface Placement {
  /** The value that owns the buffer. */
  readonly root: Value;
  /** First column. */
  readonly offset: number;
  /** Columns from a row to the next. */
  readonly stride: number;
}

/** Follows views to the buffer's owner. */
export function placementOf(value: Value): Placement {
  let root = value;
  let offset = 0;
  while (root.view) {
    offset += root.view.offset;
    root = root.view.of;
  }
  return { root, offset, stride: root.width };
}

/**
 * Row counts and other sizes of one step, by name: one entry for each {@linkcode Rows}, and what ops ask for
 * (`tiles`, `longest`).
 */
export type Counts = Readonly<Record<string, number>>;
