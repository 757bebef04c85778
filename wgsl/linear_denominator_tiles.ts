// Sums of keys by tile of rows, and from them the sums before each tile: the first two passes of the denominator of linear
// attention for many rows.
//
//   tile     0      1         2              sum before:  z
//   keys     K0     K1        K2             sum after:   z + K0 + K1 + K2
//   becomes  z      z + K0    z + K0 + K1
//
// In both kernels an invocation has one word (four components) of one KV head: of a tile, whose rows it goes through, or of a
// sequence, whose tiles it goes through.

import { defineKernel, foldGrid, type Kernel, read, write } from "./kernel.ts";
import { checkLinearSizes, fourArray, loadFour } from "./linear_decay.ts";
import { STATE_STRUCT, TILE_STRUCT } from "./tables.ts";

const THREADS = 64;

/**
 * `tileSums` [tiles][kvHeads][keySize]: sums of the keys of each tile. Bindings `k` (columns of rows), `tiles`, `tileSums`.
 *
 * @throws {RangeError} when the size does not fit.
 */
export function linearDenominatorTiles(
  spec: { readonly keySize: number; readonly aligned: boolean },
): Kernel {
  const { keySize, aligned } = spec;
  checkLinearSizes({ keySize });
  const words = keySize / 4;
  return defineKernel({
    name: `linearDenominatorTiles ${keySize}${aligned ? "" : " unaligned"}`,
    parameters: { tiles: "u32", kvHeads: "u32", kStride: "u32", kOffset: "u32" },
    bindings: [
      read("k", fourArray(aligned)),
      read("tiles", "array<Tile>"),
      write("tileSums", "array<vec4<f32>>"),
    ],
    grid: ({ tiles, kvHeads }) => [...foldGrid(Math.ceil(tiles * kvHeads * words / THREADS)), 1],
    body: `
${TILE_STRUCT}
${loadFour("k", aligned)}
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let index = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let lineWords = params.kvHeads * ${words}u;
  if (index >= params.tiles * lineWords) { return; }
  let tile = tiles[index / lineWords];
  let column = params.kOffset + index % lineWords * 4u;
  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < tile.count; i++) { sum += kFour((tile.first + i) * params.kStride + column); }
  tileSums[index] = sum;
}
`,
  });
}

/**
 * Changes `tileSums` in place to the sums before each tile and moves `state` [sequences][kvHeads][keySize] on, except of
 * sequences that are done; or, if not causal, to the sums of each tile's whole sequence. Bindings `tiles`, `tileSums`, and when
 * causal `states`, `state`.
 *
 * @throws {RangeError} when the size does not fit.
 */
export function linearDenominatorScan(spec: { readonly keySize: number; readonly causal: boolean }): Kernel {
  const { keySize, causal } = spec;
  checkLinearSizes({ keySize });
  const words = keySize / 4;
  return defineKernel({
    name: `linearDenominatorScan ${keySize}${causal ? "" : " whole"}`,
    parameters: { tiles: "u32", sequences: "u32", kvHeads: "u32" },
    bindings: [
      read("tiles", "array<Tile>"),
      write("tileSums", "array<vec4<f32>>"),
      ...(causal ? [read("states", "array<SequenceState>"), write("state", "array<vec4<f32>>")] : []),
    ],
    grid: ({ sequences, kvHeads }) => [sequences, Math.ceil(kvHeads * words / THREADS), 1],
    body: `
${STATE_STRUCT}
${TILE_STRUCT}
var<workgroup> firstTile: u32;
var<workgroup> endTile: u32;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.x;
  // The sequence's tiles stand together: one invocation finds the first, one the last of them.
  for (var t = local; t < params.tiles; t += ${THREADS}u) {
    if (tiles[t].sequence == sequence) {
      if (t == 0u || tiles[max(t, 1u) - 1u].sequence != sequence) { firstTile = t; }
      if (t + 1u == params.tiles || tiles[min(t + 1u, params.tiles - 1u)].sequence != sequence) { endTile = t + 1u; }
    }
  }
  workgroupBarrier();
  let lineWords = params.kvHeads * ${words}u;
  let word = group.y * ${THREADS}u + local;
  if (firstTile >= endTile || word >= lineWords) { return; }
  var sum = ${causal ? "state[sequence * lineWords + word]" : "vec4<f32>(0.0)"};
  for (var t = firstTile; t < endTile; t++) {
    let added = tileSums[t * lineWords + word];
    ${causal ? "tileSums[t * lineWords + word] = sum;" : ""}
    sum += added;
  }
  ${
      causal
        ? "if (states[sequence].done == 0u) { state[sequence * lineWords + word] = sum; }"
        : "for (var t = firstTile; t < endTile; t++) { tileSums[t * lineWords + word] = sum; }"
    }
}
`,
  });
}
