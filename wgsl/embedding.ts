// Looks up the embedding of each row's token.
//
// One workgroup a row; its invocations lie along the width: t0 t1 ... t63 t0 t1 ...
//
// A table over the binding limit is split by tokens into parts. Every part has a call of its own, which leaves the rows
// of the other parts alone.

import { defineKernel, foldGrid, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { loadScalar, loadVector, scalarArray, vectorArray } from "./load.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode embedding}. */
export interface EmbeddingSpec {
  /** Storage type of the table. */
  readonly dtype: StorageType;
  /** Whether width is a multiple of 4. */
  readonly vectorized: boolean;
  /** Whether token and position come from the sequence's state (decode) and not from the row (prefill). */
  readonly fromState: boolean;
  /** Whether embeddings are multiplied by the parameter `scale`. Default: no. */
  readonly scale?: boolean;
}

const THREADS = 64;

/**
 * out[row] = table[token - firstId] (* scale) for the rows whose token is in [firstId, firstId + idCount). Bindings
 * `rowTable` [rows] of Row, `states` of SequenceState (with `fromState`), `table` [idCount, width] stored as `dtype`,
 * `out` [rows, width] f32. With `fromState`, token and position are also written into `rowTable` for the kernels
 * after it, by the call of every part.
 */
export function embedding(spec: EmbeddingSpec): Kernel {
  const { dtype, vectorized, fromState, scale = false } = spec;
  const value = vectorized
    ? loadVector(dtype, "table", "source + i")
    : loadScalar(dtype, "table", "source + i");
  const token = fromState
    ? `let state = rowTable[row].sequence;
  let token = states[state].token;
  if (local == 0u) {
    rowTable[row].token = token;
    rowTable[row].position = states[state].position;
  }`
    : "let token = rowTable[row].token;";
  return defineKernel({
    name: `embedding ${dtype} ${vectorized ? "x4" : "x1"}${fromState ? " from state" : ""}${
      scale ? " scale" : ""
    }`,
    f16: dtype === "f16",
    parameters: {
      rows: "u32",
      width: "u32",
      firstId: "u32",
      idCount: "u32",
      ...(scale ? { scale: "f32" as const } : {}),
    },
    bindings: [
      fromState ? write("rowTable", "array<Row>") : read("rowTable", "array<Row>"),
      ...(fromState ? [read("states", "array<SequenceState>")] : []),
      read("table", vectorized ? vectorArray(dtype) : scalarArray(dtype)),
      write("out", vectorized ? "array<vec4<f32>>" : "array<f32>"),
    ],
    grid: ({ rows }) => [...foldGrid(rows), 1],
    body: `
${ROW_STRUCT}
${fromState ? STATE_STRUCT : ""}
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  ${token}
  // Ids below firstId wrap around to large ones.
  let id = token - params.firstId;
  if (id >= params.idCount) { return; }
  let length = params.width${vectorized ? " / 4u" : ""};
  let source = id * length;
  for (var i = local; i < length; i += ${THREADS}u) {
    out[row * length + i] = ${value}${scale ? " * params.scale" : ""};
  }
}
`,
  });
}
