// What the queries of a prompt are like: mean and covariance by head, before rotation, and then as the queries that are to
// come have them, rotated on (Expected Attention, arXiv:2510.00636).
//
//   plainQueries      rotated queries -> queries, by the inverse rotation
//   queryMeans        means[sequence][head][i]
//   queryCovariances  covariances[sequence][head][i][j]
//   turnStatistics    both under the mean rotation of the next positions

import { defineKernel, foldGrid, type Kernel, type Parameters, read, write } from "./kernel.ts";
import { FINE_POSITIONS, type RotaryLayout } from "./rope_store.ts";
import { ROW_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of kernels that know of a head's rotation. */
export interface RotatedSpec {
  /** Numbers in a head. */
  readonly headSize: number;
  /** How pairs of components are laid out; `none`: nothing is rotated, and no table bound. */
  readonly rotaryLayout: RotaryLayout;
  /** How many components from a head's first on are rotated, an even number. */
  readonly rotarySize: number;
}

const THREADS = 256;
const SIDE = 16;

/** WGSL of the pair that a component belongs to, its place in it and the other component. */
function pairing({ rotaryLayout, rotarySize }: RotatedSpec): string {
  const pairs = rotarySize / 2;
  return rotaryLayout === "half"
    ? `fn pairOf(i: u32) -> u32 { return i % ${pairs}u; }
fn isSecond(i: u32) -> bool { return i >= ${pairs}u; }
fn otherOf(i: u32) -> u32 { return select(i + ${pairs}u, i - ${pairs}u, i >= ${pairs}u); }`
    : `fn pairOf(i: u32) -> u32 { return i / 2u; }
fn isSecond(i: u32) -> bool { return i % 2u == 1u; }
fn otherOf(i: u32) -> u32 { return i ^ 1u; }`;
}

/** WGSL of (cos, sin) of a pair at a position. */
function turning({ rotarySize }: RotatedSpec): string {
  const pairs = rotarySize / 2;
  return `fn turn(pair: u32, position: u32) -> vec2<f32> {
  let low = ropeTable[(position % ${FINE_POSITIONS}u) * ${pairs}u + pair];
  let high = ropeTable[(${FINE_POSITIONS}u + position / ${FINE_POSITIONS}u) * ${pairs}u + pair];
  return vec2<f32>(low.x * high.x - low.y * high.y, low.y * high.x + low.x * high.y);
}`;
}

/**
 * `plain[(row * heads + head) * headSize ..]`: the queries `q[row * qStride + qOffset + head * headSize ..]` as they were
 * before `ropeStore` rotated them by their rows' positions.
 */
export function plainQueries(spec: RotatedSpec): Kernel {
  const { headSize, rotaryLayout, rotarySize } = spec;
  const rotates = rotaryLayout !== "none";
  return defineKernel({
    name: `plainQueries head ${headSize} ${rotaryLayout} ${rotarySize}`,
    parameters: { rows: "u32", heads: "u32", qStride: "u32", qOffset: "u32" },
    bindings: [
      read("q", "array<f32>"),
      ...(rotates ? [read("ropeTable", "array<vec2<f32>>")] : []),
      read("rowTable", "array<Row>"),
      write("plain", "array<f32>"),
    ],
    grid: ({ rows, heads }: Parameters) => [...foldGrid(Math.ceil(rows * heads * headSize / THREADS)), 1],
    body: `
${ROW_STRUCT}
${rotates ? `${pairing(spec)}\n${turning(spec)}` : ""}
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let index = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let width = params.heads * ${headSize}u;
  let row = index / width;
  if (row >= params.rows) { return; }
  let column = index % width;
  let first = row * params.qStride + params.qOffset;
  var value = q[first + column];
  ${
      rotates
        ? `let i = column % ${headSize}u;
  if (i < ${rotarySize}u) {
    let t = turn(pairOf(i), rowTable[row].position);
    value = t.x * value + select(t.y, -t.y, isSecond(i)) * q[first + column - i + otherOf(i)];
  }`
        : ""
    }
  plain[index] = value;
}
`,
  });
}

const STATISTICS = { heads: "u32", sequences: "u32", sinks: "u32" } as const;

/**
 * `means[(sequence * heads + head) * headSize ..]`: the mean of the plain queries over the rows of a sequence's `Selection`
 * whose positions are not below `sinks`; 0 where there are none.
 */
export function queryMeans(headSize: number): Kernel {
  return defineKernel({
    name: `queryMeans head ${headSize}`,
    parameters: STATISTICS,
    bindings: [
      read("plain", "array<f32>"),
      read("rowTable", "array<Row>"),
      read("selections", "array<Selection>"),
      write("means", "array<f32>"),
    ],
    grid: ({ heads, sequences }) => [heads, sequences, 1],
    body: `
${ROW_STRUCT}
${SELECTION_STRUCT}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.y];
  for (var i = local; i < ${headSize}u; i += 64u) {
    var sum = 0.0;
    var count = 0u;
    for (var row = selection.first; row < selection.first + selection.count; row++) {
      if (rowTable[row].position < params.sinks) { continue; }
      sum += plain[(row * params.heads + group.x) * ${headSize}u + i];
      count++;
    }
    means[(group.y * params.heads + group.x) * ${headSize}u + i] = sum / f32(max(count, 1u));
  }
}
`,
  });
}

/**
 * `covariances[((sequence * heads + head) * headSize + i) * headSize + j]` of the same queries around their means, divided
 * by their number. A workgroup has 16 x 16 of them, and takes 16 rows at a time.
 */
export function queryCovariances(headSize: number): Kernel {
  const tiles = Math.ceil(headSize / SIDE);
  return defineKernel({
    name: `queryCovariances head ${headSize}`,
    parameters: STATISTICS,
    bindings: [
      read("plain", "array<f32>"),
      read("rowTable", "array<Row>"),
      read("selections", "array<Selection>"),
      read("means", "array<f32>"),
      write("covariances", "array<f32>"),
    ],
    grid: ({ heads, sequences }) => [heads, sequences, tiles * tiles],
    body: `
${ROW_STRUCT}
${SELECTION_STRUCT}
// Of 16 rows: components i of this tile, components j, and whether the row counts.
var<workgroup> left: array<f32, ${SIDE * SIDE}>;
var<workgroup> right: array<f32, ${SIDE * SIDE}>;
var<workgroup> counted: array<u32, ${SIDE}>;

@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.y];
  let pair = group.y * params.heads + group.x;
  let x = local % ${SIDE}u;
  let y = local / ${SIDE}u;
  let i = group.z / ${tiles}u * ${SIDE}u;
  let j = group.z % ${tiles}u * ${SIDE}u;
  let lastI = min(i + x, ${headSize - 1}u);
  let lastJ = min(j + x, ${headSize - 1}u);
  let meanI = means[pair * ${headSize}u + lastI];
  let meanJ = means[pair * ${headSize}u + lastJ];
  var sum = 0.0;
  var count = 0u;
  for (var tile = 0u; tile < selection.count; tile += ${SIDE}u) {
    let row = selection.first + min(tile + y, selection.count - 1u);
    let counts = tile + y < selection.count && rowTable[row].position >= params.sinks;
    let query = (row * params.heads + group.x) * ${headSize}u;
    left[local] = select(0.0, plain[query + lastI] - meanI, counts);
    right[local] = select(0.0, plain[query + lastJ] - meanJ, counts);
    if (x == 0u) { counted[y] = select(0u, 1u, counts); }
    workgroupBarrier();
    for (var r = 0u; r < ${SIDE}u; r++) {
      sum = fma(left[r * ${SIDE}u + y], right[r * ${SIDE}u + x], sum);
      count += counted[r];
    }
    workgroupBarrier();
  }
  if (i + y < ${headSize}u && j + x < ${headSize}u) {
    covariances[(pair * ${headSize}u + i + y) * ${headSize}u + j + x] = sum / f32(max(count, 1u));
  }
}
`,
  });
}

/**
 * `turnedMeans` = R means and `turnedCovariances` = R covariances Rᵀ, of the same layouts, where R is the mean rotation over
 * the positions after a sequence's last row: that of the row, and then `ahead` (mean cos, mean sin by pair) of what follows.
 */
export function turnStatistics(spec: RotatedSpec): Kernel {
  const { headSize, rotaryLayout, rotarySize } = spec;
  const rotates = rotaryLayout !== "none";
  return defineKernel({
    name: `turnStatistics head ${headSize} ${rotaryLayout} ${rotarySize}`,
    parameters: { heads: "u32", sequences: "u32" },
    bindings: [
      read("means", "array<f32>"),
      read("covariances", "array<f32>"),
      ...(rotates ? [read("ropeTable", "array<vec2<f32>>"), read("ahead", "array<vec2<f32>>")] : []),
      read("rowTable", "array<Row>"),
      read("selections", "array<Selection>"),
      write("turnedMeans", "array<f32>"),
      write("turnedCovariances", "array<f32>"),
    ],
    grid: ({ heads, sequences }) => [heads, sequences, Math.ceil(headSize * headSize / THREADS)],
    body: `
${ROW_STRUCT}
${SELECTION_STRUCT}
${
      rotates
        ? `${pairing(spec)}
${turning(spec)}
// Factors of a component itself and of the other one of its pair.
fn factors(i: u32, position: u32) -> vec2<f32> {
  if (i >= ${rotarySize}u) { return vec2<f32>(1.0, 0.0); }
  let a = turn(pairOf(i), position);
  let b = ahead[pairOf(i)];
  let c = a.x * b.x - a.y * b.y;
  let s = a.y * b.x + a.x * b.y;
  return vec2<f32>(c, select(-s, s, isSecond(i)));
}
fn partner(i: u32) -> u32 { return select(otherOf(i), i, i >= ${rotarySize}u); }`
        : `fn factors(i: u32, position: u32) -> vec2<f32> { return vec2<f32>(1.0, 0.0); }
fn partner(i: u32) -> u32 { return i; }`
    }

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let element = group.z * ${THREADS}u + local;
  let selection = selections[group.y];
  if (element >= ${headSize * headSize}u || selection.count == 0u) { return; }
  let position = rowTable[selection.first + selection.count - 1u].position;
  let pair = group.y * params.heads + group.x;
  let i = element / ${headSize}u;
  let j = element % ${headSize}u;
  let own = factors(i, position);
  let other = factors(j, position);
  let row = (pair * ${headSize}u + i) * ${headSize}u;
  let rowPartner = (pair * ${headSize}u + partner(i)) * ${headSize}u;
  turnedCovariances[row + j] =
    own.x * (covariances[row + j] * other.x + covariances[row + partner(j)] * other.y) +
    own.y * (covariances[rowPartner + j] * other.x + covariances[rowPartner + partner(j)] * other.y);
  if (j == 0u) {
    let mean = pair * ${headSize}u;
    turnedMeans[mean + i] = own.x * means[mean + i] + own.y * means[mean + partner(i)];
  }
}
`,
  });
}
