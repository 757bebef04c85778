// The cores of linear attention by their definitions, naively and in f64: features row by row, then the sum over all pairs of
// rows (the quadratic form), or the recurrence where a core is defined by one.

/** A matrix by rows. */
export type Rows = readonly Float64Array[];

/** What a core gets of one sequence. */
export interface CoreRows {
  readonly q: Rows;
  readonly k: Rows;
  readonly v: Rows;
  readonly outputGate?: Rows;
  readonly decay?: Rows;
  readonly beta?: Rows;
}

/** Heads of a layer. */
export interface HeadShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

const exp = Math.exp;
const sigmoid = (x: number) => x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
const softplus = (x: number) => Math.max(x, 0) + Math.log1p(exp(-Math.abs(x)));
const silu = (x: number) => x * sigmoid(x);

/** Softmax of one head. */
function softmax(head: Float64Array): Float64Array {
  const most = Math.max(...head);
  const powers = head.map((x) => exp(x - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

/** Feature maps of one head. */
export const MAPS: Readonly<Record<string, (head: Float64Array) => Float64Array>> = {
  "identity": (head) => head,
  "elu": (head) => head.map((x) => x > 0 ? x : Math.expm1(x)),
  "1+elu": (head) => head.map((x) => x > 0 ? 1 + x : exp(x)),
  "relu": (head) => head.map((x) => Math.max(0, x)),
  "silu": (head) => head.map(silu),
  "hedgehog": (head) => Float64Array.of(...softmax(head), ...softmax(head.map((x) => -x))),
  "l2 silu": (head) => {
    const mapped = head.map(silu);
    const length = Math.sqrt(mapped.reduce((a, x) => a + x * x, 1e-6));
    return mapped.map((x) => x / length);
  },
};

/** Rotates pairs (2i, 2i + 1) of a head by position · θ_i. */
export function rotateInterleaved(
  head: Float64Array,
  position: number,
  thetas: readonly number[],
): Float64Array {
  const out = Float64Array.from(head);
  thetas.forEach((theta, i) => {
    const [c, s] = [Math.cos(position * theta), Math.sin(position * theta)];
    out[2 * i] = head[2 * i] * c - head[2 * i + 1] * s;
    out[2 * i + 1] = head[2 * i + 1] * c + head[2 * i] * s;
  });
  return out;
}

/** [x cos | x sin] with an angle a component. */
export function rotateConcat(head: Float64Array, position: number, thetas: readonly number[]): Float64Array {
  return Float64Array.of(
    ...head.map((x, i) => x * Math.cos(position * thetas[i])),
    ...head.map((x, i) => x * Math.sin(position * thetas[i])),
  );
}

/** Head `h` of a row. */
export function headOf(row: Float64Array, h: number, headSize: number): Float64Array {
  return row.subarray(h * headSize, (h + 1) * headSize);
}

export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Maps every head of every row. */
export function mapHeads(
  rows: Rows,
  headSize: number,
  map: (head: Float64Array, position: number) => Float64Array,
): Rows {
  return rows.map((row, position) => {
    const heads = Array.from(
      { length: row.length / headSize },
      (_, h) => map(headOf(row, h, headSize), position),
    );
    return Float64Array.from(heads.flatMap((head) => [...head]));
  });
}

/** Σ over j of weight(i, j, head) v_j; `weight` may be 0. */
export function weighted(
  v: Rows,
  { heads, kvHeads, headSize }: HeadShape,
  weight: (i: number, j: number, head: number, kvHead: number) => number,
): Rows {
  return v.map((_, i) => {
    const out = new Float64Array(heads * headSize);
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head * kvHeads / heads);
      for (let j = 0; j < v.length; j++) {
        const w = weight(i, j, head, kvHead);
        if (w === 0) continue;
        for (let c = 0; c < headSize; c++) out[head * headSize + c] += w * v[j][kvHead * headSize + c];
      }
    }
    return out;
  });
}

/** q_i · k_j by head for j ≤ i, else 0. */
export function causalScores(q: Rows, k: Rows, { heads, kvHeads }: HeadShape) {
  const size = q[0].length / heads;
  if (k[0].length / kvHeads !== size) throw new Error("features of queries and keys differ in size");
  return (i: number, j: number, head: number, kvHead: number): number =>
    j > i ? 0 : dot(headOf(q[i], head, size), headOf(k[j], kvHead, size));
}

/** Sums over their denominators. */
export function divide(
  sums: Rows,
  heads: number,
  denominator: (i: number, head: number) => number,
): Rows {
  return sums.map((row, i) => {
    const by = Array.from({ length: heads }, (_, head) => denominator(i, head));
    return row.map((x, c) => x / by[Math.floor(c * heads / row.length)]);
  });
}

/** x / sqrt(mean x² + ε), over groups of columns; or with ε beside the root. */
export function rmsRows(rows: Rows, groups: number, epsilon: number, placement = "inside"): Rows {
  return rows.map((row) => {
    const size = row.length / groups;
    return row.map((x, c) => {
      const group = headOf(row, Math.floor(c / size), size);
      const mean = dot(group, group) / size;
      return placement === "inside" ? x / Math.sqrt(mean + epsilon) : x / (Math.sqrt(mean) + epsilon);
    });
  });
}

/** Rows times what is made of gates. */
export function gated(rows: Rows, gates: Rows | undefined, activation: (x: number) => number): Rows {
  return gates ? rows.map((row, i) => row.map((x, c) => x * activation(gates[i][c]))) : rows;
}

/** The recurrence S ← D S (before), S ← S + k uᵀ, o = Sᵀ q of every head; `step` gives the decay by key component and u. */
export function recurrence(
  { q, k, v }: CoreRows,
  { heads, kvHeads, headSize }: HeadShape,
  step: (i: number, kvHead: number, component: number) => number,
  write: (i: number, kvHead: number, value: number, read: number) => number,
): Rows {
  const keySize = q[0].length / heads;
  const states = Array.from({ length: kvHeads }, () => new Float64Array(keySize * headSize));
  return q.map((_, i) => {
    for (const [g, state] of states.entries()) {
      const key = headOf(k[i], g, keySize);
      for (let d = 0; d < keySize; d++) {
        const decay = step(i, g, d);
        for (let c = 0; c < headSize; c++) state[d * headSize + c] *= decay;
      }
      for (let c = 0; c < headSize; c++) {
        let read = 0;
        for (let d = 0; d < keySize; d++) read += key[d] * state[d * headSize + c];
        const u = write(i, g, v[i][g * headSize + c], read);
        for (let d = 0; d < keySize; d++) state[d * headSize + c] += key[d] * u;
      }
    }
    const out = new Float64Array(heads * headSize);
    for (let head = 0; head < heads; head++) {
      const state = states[Math.floor(head * kvHeads / heads)];
      const query = headOf(q[i], head, keySize);
      for (let c = 0; c < headSize; c++) {
        for (let d = 0; d < keySize; d++) out[head * headSize + c] += query[d] * state[d * headSize + c];
      }
    }
    return out;
  });
}

export { sigmoid, silu, softplus };
