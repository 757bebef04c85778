// Second pass of linear attention in chunks: from what each tile adds to the state that each tile begins with.
//
//   tile     0        1           2                       state before:  S
//   added    A0       A1          A2                      state after:   d2 (d1 (d0 S + A0) + A1) + A2
//   becomes  S        d0 S + A0   d1 (d0 S + A0) + A1
//
// A workgroup owns one KV head of one sequence and a block of value columns (see `columnBlocks`), over all keys; its
// invocations take the block's words in turn and go through the sequence's tiles in order, four loads ahead.
//
// Rows that see their whole sequence have no state: then every tile gets the sum of all.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { checkLinearSizes, columnBlocks, type LinearDecay, POSITION_DECAY } from "./linear_decay.ts";
import { ROW_STRUCT, STATE_STRUCT, TILE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearChunkScan}. */
export interface LinearChunkScanSpec {
  /** Components of a key's head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Components of a value's head, a multiple of 4 up to 256. */
  readonly valueSize: number;
  /** Decay; `none` where rows see all of their sequence. */
  readonly decay: LinearDecay;
  /** Whether rows see only themselves and earlier ones. */
  readonly causal: boolean;
}

const THREADS = 256;
const AHEAD = 4;

/**
 * Changes `tileStates` [tiles][heads][keySize][valueSize] in place and, when causal, moves `state` on, except of sequences that
 * are done. Bindings `tiles`, `tileStates`; when causal also `rowTable`, `states` and `state`, with a decay `tileDecays` [tiles][heads],
 * and with decay by position `decays`. The state of a sequence's first tile is decayed to the position of its first row.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearChunkScan(spec: LinearChunkScanSpec): Kernel {
  const { keySize, valueSize, decay, causal } = spec;
  checkLinearSizes({ keySize, valueSize });
  const { blocks, words } = columnBlocks(valueSize);
  const valueWords = valueSize / 4;
  const threads = Math.min(THREADS, keySize * words);
  const position = decay === "position";
  const decays = decay !== "none";
  const ahead = (piece: (n: number) => string): string => unroll(AHEAD, piece);
  const stateAt = `stateBase + head * ${keySize * valueWords}u + at`;

  return defineKernel({
    name: `linearChunkScan ${keySize}x${valueSize} decay ${decay}${causal ? "" : " whole"}`,
    parameters: {
      tiles: "u32",
      sequences: "u32",
      firstHead: "u32",
      heads: "u32",
      kvHeads: "u32",
      stateWords: "u32",
    },
    bindings: [
      read("tiles", "array<Tile>"),
      write("tileStates", "array<vec4<f32>>"),
      ...(causal
        ? [
          read("rowTable", "array<Row>"),
          read("states", "array<SequenceState>"),
          write("state", "array<vec4<f32>>"),
        ]
        : []),
      ...(decays ? [read("tileDecays", "array<f32>")] : []),
      ...(position ? [read("decays", "array<f32>")] : []),
    ],
    grid: ({ sequences, heads }) => [sequences, heads, blocks],
    body: `
${ROW_STRUCT}
${STATE_STRUCT}
${TILE_STRUCT}
${position ? POSITION_DECAY : ""}
var<workgroup> firstTile: u32;
var<workgroup> endTile: u32;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = group.x;
  // The sequence's tiles stand together: one invocation finds the first, one the last of them.
  for (var t = local; t < params.tiles; t += ${threads}u) {
    if (tiles[t].sequence == sequence) {
      if (t == 0u || tiles[max(t, 1u) - 1u].sequence != sequence) { firstTile = t; }
      if (t + 1u == params.tiles || tiles[min(t + 1u, params.tiles - 1u)].sequence != sequence) { endTile = t + 1u; }
    }
  }
  workgroupBarrier();
  let begin = firstTile;
  let end = endTile;
  if (begin >= end) { return; }
  let stride = params.heads * ${keySize * valueWords}u;
  ${
      causal
        ? `let head = params.firstHead + group.y;
  let stateBase = sequence * params.stateWords;
  let running = states[sequence].done == 0u;`
        : ""
    }
  ${
      position
        ? `let markAt = stateBase + params.kvHeads * ${keySize * valueWords}u + head * ${blocks}u + group.z;
  let mark = state[markAt];
  let since = rowTable[tiles[begin].first].position - positionOf(mark);
  let entry = decayOver(decays[head], select(0u, since, mark.x > 0.0 && since < 0x80000000u));`
        : ""
    }
  for (var unit = local; unit < ${keySize * words}u; unit += ${threads}u) {
    let word = group.z * ${words}u + unit % ${words}u;
    if (word >= ${valueWords}u) { continue; }
    let at = unit / ${words}u * ${valueWords}u + word;
    let first = group.y * ${keySize * valueWords}u + at;
    var sum = ${causal ? `state[${stateAt}]${position ? " * entry" : ""}` : "vec4<f32>(0.0)"};
    for (var t = begin; t < end; t += ${AHEAD}u) {
      ${ahead((n) => `let t${n} = min(t + ${n}u, end - 1u);`)}
      ${ahead((n) => `let added${n} = tileStates[t${n} * stride + first];`)}
      ${decays ? ahead((n) => `let decay${n} = tileDecays[t${n} * params.heads + group.y];`) : ""}
      ${
      ahead((n) =>
        `if (t + ${n}u < end) {
        ${causal ? `tileStates[t${n} * stride + first] = sum;` : ""}
        sum = ${decays ? `fma(sum, vec4<f32>(decay${n}), added${n})` : `sum + added${n}`};
      }`
      )
    }
    }
    ${
      causal
        ? `if (running) { state[${stateAt}] = sum; }`
        : "for (var t = begin; t < end; t++) { tileStates[t * stride + first] = sum; }"
    }
  }
  ${
      position
        ? `// All have read the mark before one of them writes it.
  workgroupBarrier();
  if (local == 0u && running) {
    let tile = tiles[end - 1u];
    state[markAt] = markOf(rowTable[tile.first + max(tile.count, 1u) - 1u].position);
  }`
        : ""
    }
}
`,
  });
}
