// WGSL of the kernels that walk a sequence row by row with the state in registers; linear_delta_recurrent.ts draws how
// invocations map to it.

import { unroll } from "./kernel.ts";
import type { StateHeadSizes } from "./state_heads.ts";

/** Invocations that share a column of the state, and words of 4 columns of a workgroup. */
const PARTS = 16;
const WORDS = 4;

/** Finds the rows of workgroup `group.x`: `sequence`, `first` and `count`. */
export function recurrentRows(table: "rows" | "spans"): string {
  return table === "rows"
    ? `let first = group.x;
  let count = 1u;
  let sequence = table[first].sequence;`
    : `let sequence = group.x;
  let first = table[sequence].x;
  let count = table[sequence].y;
  if (count == 0u) { return; }`;
}

/** Finds head and columns of an invocation. Columns over the end repeat the last ones and are not stored. */
export function recurrentColumns({ keySize, valueSize }: StateHeadSizes): string {
  const words = valueSize / 4;
  return `let kvHead = group.y;
  let part = local / ${WORDS}u;
  let inside = group.z * ${WORDS}u + local % ${WORDS}u < ${words}u;
  let column = min(group.z * ${WORDS}u + local % ${WORDS}u, ${words - 1}u);
  let stateStart = (sequence * params.kvHeads + kvHead) * ${keySize * words}u + column;
  let groupSize = params.heads / params.kvHeads;`;
}

/** Parts of a recurrent kernel, over the bindings `q`, `states`, `state` and `out` and the names of the functions above. */
export interface RecurrentState {
  /** Invocations of a workgroup. */
  readonly threads: number;
  /** Workgroups for the columns of a head. */
  readonly blocks: number;
  /** Rows of the state that an invocation has: `s0`, `s1` ... */
  readonly own: number;
  /** Workgroup memory, and `fn total(value: vec4<f32>, local: u32) -> vec4<f32>`: the sum over all parts. */
  readonly declarations: string;
  /** Declares the own rows and reads them. */
  readonly load: string;
  /** Declares `NAME0`, `NAME1` ...: a vector's components of the own rows, 0 where there are none. */
  readonly vector: (name: string, array: string, start: string) => string;
  /** Own part of the product of the state's columns with a vector. */
  readonly product: (name: string) => string;
  /** Puts out o = Sᵀ q for the query heads of the group. */
  readonly outputs: string;
  /** Writes the own rows, unless the sequence is done. */
  readonly store: string;
}

/** Makes the parts of a recurrent kernel. */
export function recurrentState({ keySize, valueSize }: StateHeadSizes): RecurrentState {
  const own = Math.ceil(keySize / PARTS);
  const words = valueSize / 4;
  const rowOf = (i: number): string => `part + ${i * PARTS}u`;
  /** Reads by own row; rows over the end read the last one and are 0. */
  const guarded = (i: number, zero: string, at: (row: string) => string): string =>
    (i + 1) * PARTS <= keySize
      ? at(`(${rowOf(i)})`)
      : `select(${zero}, ${at(`min(${rowOf(i)}, ${keySize - 1}u)`)}, ${rowOf(i)} < ${keySize}u)`;
  const vector = (name: string, array: string, start: string): string =>
    unroll(own, (i) => `let ${name}${i} = ${guarded(i, "0.0", (row) => `${array}[${start} + ${row}]`)};`);
  const product = (name: string): string =>
    Array.from({ length: own }, (_, i) => `${name}${i} * s${i}`).join(" + ");
  return {
    threads: PARTS * WORDS,
    blocks: Math.ceil(words / WORDS),
    own,
    declarations: `var<workgroup> partials: array<vec4<f32>, ${PARTS * WORDS}>;
fn total(value: vec4<f32>, local: u32) -> vec4<f32> {
  workgroupBarrier();
  partials[local] = value;
  workgroupBarrier();
  let word = local % ${WORDS}u;
  var sum = partials[word];
  ${unroll(PARTS - 1, (i) => `sum += partials[word + ${(i + 1) * WORDS}u];`)}
  return sum;
}`,
    load: unroll(
      own,
      (i) => `var s${i} = ${guarded(i, "vec4<f32>()", (row) => `state[stateStart + ${row} * ${words}u]`)};`,
    ),
    vector,
    product,
    outputs: `for (var member = 0u; member < groupSize; member++) {
      let head = kvHead * groupSize + member;
      let queryStart = row * params.qStride + params.qOffset + head * ${keySize}u;
      ${vector("q", "q", "queryStart")}
      let output = total(${product("q")}, local);
      if (part == 0u && inside) { out[(row * params.heads + head) * ${words}u + column] = output; }
    }`,
    store: `if (inside && states[sequence].done == 0u) {
    ${
      unroll(own, (i) => {
        const write = `state[stateStart + (${rowOf(i)}) * ${words}u] = s${i};`;
        return (i + 1) * PARTS <= keySize ? write : `if (${rowOf(i)} < ${keySize}u) { ${write} }`;
      })
    }
  }`,
  };
}
