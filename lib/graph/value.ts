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
  /**
   * Rows these were taken from, and what maps each of these to one of those: a named table, or a value of u32 that the
   * plan makes itself; none for a step's own rows.
   */
  readonly from?: { readonly rows: Rows; readonly map: string | Value };
  /** Consecutive rows of others, from `first` on; their count follows from that of those. */
  readonly slice?: { readonly of: Rows; readonly first: number };
  /** Row structs of rows that the plan picks itself; other rows have theirs in the step's tables. */
  readonly table?: Value;
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
  /** Set when the value is a range of columns, or of rows, of another one's buffer. */
  view?: { readonly of: Value; readonly offset: number; readonly firstRow?: number };
}

/** Where a value's columns stand. */
export interface Placement {
  /** The value that owns the buffer. */
  readonly root: Value;
  /** First row. */
  readonly firstRow: number;
  /** First column. */
  readonly offset: number;
  /** Columns from a row to the next. */
  readonly stride: number;
}

/** Follows views to the buffer's owner. */
export function placementOf(value: Value): Placement {
  let root = value;
  let offset = 0;
  let firstRow = 0;
  while (root.view) {
    offset += root.view.offset;
    firstRow += root.view.firstRow ?? 0;
    root = root.view.of;
  }
  return { root, firstRow, offset, stride: root.width };
}

/** Whether a value is some of the columns of a wider one. */
export function isColumnRange(value: Value): boolean {
  return placementOf(value).stride !== value.width;
}

/**
 * Row counts and other sizes of one step, by name: one entry for each {@linkcode Rows}, and what ops ask for
 * (`tiles`, `longest`).
 */
export type Counts = Readonly<Record<string, number>>;
