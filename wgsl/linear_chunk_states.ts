// First pass of linear attention in chunks: what each tile of rows adds to the state.
//
//   added[tile, head] = sum over the tile's rows j of (decay from j to the tile's last row) * k_j v_j^T
//
// A workgroup owns a block of that matrix, up to 64 keys by 64 values; invocation (tk, tv) has eight key rows of one word
// (four columns) in named vectors:
//
//                 word tv = 0   1   2  ...
//   keys 0-7    |    s0 ... s7  |            rows come through workgroup memory, 16 at a time, the keys already
//   keys 8-15   |               |            multiplied by their decays
//
// With a decay, decayed[tile, head] is the factor of the state over the whole tile: from the row before it (from its own
// first row, where the tile is the first of its sequence) to its last row.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import {
  checkLinearSizes,
  fourArray,
  LINEAR_TILE,
  type LinearDecay,
  loadFour,
  outerProduct,
  POSITION_DECAY,
  TOKEN_DECAY,
} from "./linear_decay.ts";
import { ROW_STRUCT, TILE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearChunkStates}. */
export interface LinearChunkStatesSpec {
  /** Components of a key's head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Components of a value's head, a multiple of 4 up to 256. */
  readonly valueSize: number;
  /** Decay. */
  readonly decay: LinearDecay;
  /** Whether offsets and strides of k and v are multiples of 4. */
  readonly aligned: boolean;
}

const OWN = 8;
const DEPTH = 16;
const BLOCK = 64;

/**
 * Writes `tileStates` [tiles][heads][keySize][valueSize] for the KV heads [firstHead, firstHead + heads), and with a decay
 * `tileDecays` [tiles][heads]. Bindings `k`, `v`, `rowTable`, `tiles`, with a decay `decays` (slopes by KV head, or logarithms by
 * row).
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearChunkStates(spec: LinearChunkStatesSpec): Kernel {
  const { keySize, valueSize, decay, aligned } = spec;
  checkLinearSizes({ keySize, valueSize });
  const keyWords = keySize / 4;
  const valueWords = valueSize / 4;
  // Blocks of even size; those of keys in whole pieces of a thread.
  const keyBlocks = Math.ceil(keySize / BLOCK);
  const down = Math.ceil(keySize / keyBlocks / OWN);
  const valueBlocks = Math.ceil(valueSize / BLOCK);
  const across = Math.ceil(valueWords / valueBlocks);
  const threads = down * across;
  const keyLine = 2 * down;
  const decays = decay !== "none";
  const weights = decay === "position"
    ? `let slope = decays[head];
  let lastPosition = rowTable[last].position;
  for (var i = local; i < ${LINEAR_TILE}u; i += ${threads}u) {
    weights[i] = decayOver(slope, lastPosition - rowTable[min(tile.first + i, last)].position);
  }`
    : decay === "token"
    // A sum of the later rows' own logarithms: no difference of large sums.
    ? `for (var i = local; i < ${LINEAR_TILE}u; i += ${threads}u) { logs[i] = logDecayOf(min(tile.first + i, last), head); }
  workgroupBarrier();
  for (var i = local; i < ${LINEAR_TILE}u; i += ${threads}u) {
    var sum = 0.0;
    for (var later = i + 1u; later < tile.count; later++) { sum += logs[later]; }
    weights[i] = exp(max(sum, -200.0));
  }`
    : "";
  const whole = decay === "position"
    ? `let before = max(tile.first, 1u) - 1u;
    let continued = tile.first > 0u && rowTable[before].sequence == tile.sequence;
    let start = rowTable[select(tile.first, before, continued)].position;
    tileDecays[group.x * params.heads + group.y] = decayOver(slope, lastPosition - start);`
    : "tileDecays[group.x * params.heads + group.y] = weights[0] * exp(logs[0]);";

  return defineKernel({
    name: `linearChunkStates ${keySize}x${valueSize} decay ${decay}${aligned ? "" : " unaligned"}`,
    parameters: {
      tiles: "u32",
      firstHead: "u32",
      heads: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      ...(decay === "token" ? { decayStride: "u32" as const, decayOffset: "u32" as const } : {}),
    },
    bindings: [
      read("k", fourArray(aligned)),
      read("v", fourArray(aligned)),
      read("rowTable", "array<Row>"),
      read("tiles", "array<Tile>"),
      ...(decays ? [read("decays", "array<f32>")] : []),
      write("tileStates", "array<vec4<f32>>"),
      ...(decays ? [write("tileDecays", "array<f32>")] : []),
    ],
    grid: ({ tiles, heads }) => [tiles, heads, keyBlocks * valueBlocks],
    body: `
${ROW_STRUCT}
${TILE_STRUCT}
${["k", "v"].map((name) => loadFour(name, aligned)).join("")}
${decay === "position" ? POSITION_DECAY : decay === "token" ? TOKEN_DECAY : ""}
var<workgroup> keyTile: array<vec4<f32>, ${DEPTH * keyLine}>;
var<workgroup> valueTile: array<vec4<f32>, ${DEPTH * across}>;
${decays ? `var<workgroup> weights: array<f32, ${LINEAR_TILE}>;` : ""}
${decay === "token" ? `var<workgroup> logs: array<f32, ${LINEAR_TILE}>;` : ""}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let tile = tiles[group.x];
  let head = params.firstHead + group.y;
  let last = tile.first + max(tile.count, 1u) - 1u;
  let tk = local / ${across}u;
  let tv = local % ${across}u;
  let keyBlock = group.z / ${valueBlocks}u;
  let valueBlock = group.z % ${valueBlocks}u;
  ${weights}
  ${unroll(OWN, (i) => `var s${i} = vec4<f32>(0.0);`)}
  for (var start = 0u; start < tile.count; start += ${DEPTH}u) {
    workgroupBarrier();
    for (var unit = local; unit < ${DEPTH * keyLine}u; unit += ${threads}u) {
      let i = start + unit / ${keyLine}u;
      let word = keyBlock * ${keyLine}u + unit % ${keyLine}u;
      let row = min(tile.first + i, last);
      let there = i < tile.count && word < ${keyWords}u;
      let key = kFour(row * params.kStride + params.kOffset + head * ${keySize}u + min(word, ${
      keyWords - 1
    }u) * 4u);
      keyTile[unit] = select(vec4<f32>(0.0), key${decays ? " * weights[i]" : ""}, there);
    }
    for (var unit = local; unit < ${DEPTH * across}u; unit += ${threads}u) {
      let row = min(tile.first + start + unit / ${across}u, last);
      let word = min(valueBlock * ${across}u + unit % ${across}u, ${valueWords - 1}u);
      valueTile[unit] = vFour(row * params.vStride + params.vOffset + head * ${valueSize}u + word * 4u);
    }
    workgroupBarrier();    for (var four = 0u; four < ${DEPTH}u; four += 4u) {
      ${
      unroll(4, (d) =>
        `{
        let line = (four + ${d}u) * ${keyLine}u + 2u * tk;
        let k0 = keyTile[line];
        let k1 = keyTile[line + 1u];
        let value = valueTile[(four + ${d}u) * ${across}u + tv];
        ${outerProduct((i) => `s${i}`, ["k0", "k1"], "value")}
      }`)
    }
    }
  }
  let firstKey = keyBlock * ${OWN * down}u + tk * ${OWN}u;
  let word = valueBlock * ${across}u + tv;
  let first = ((group.x * params.heads + group.y) * ${keySize}u + firstKey) * ${valueWords}u + word;
  if (word < ${valueWords}u) {
    ${
      unroll(OWN, (i) =>
        `if (firstKey + ${i}u < ${keySize}u) { tileStates[first + ${i * valueWords}u] = s${i}; }`)
    }
  }
  ${decays ? `if (group.z == 0u && local == 0u) {\n    ${whole}\n  }` : ""}
}
`,
  });
}
