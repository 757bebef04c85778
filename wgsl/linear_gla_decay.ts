// What gated linear attention needs of a chunk's decays between chunks: exp(G), from the chunk's beginning to each row, and
// the keys as the chunk's end sees them, k exp(G_C - G).
//
// An invocation owns one component of one KV head over the (up to 16) rows of a chunk, forwards and then backwards:
//
//           component: t0 | t1 | t2 | ...
//   row 0                 |
//   row 1                 v  ^  sums of logs from either end: never a difference of two large ones
//   ...                      |

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { chunkWorkgroups, findChunk } from "./state_heads.ts";
import { TILE_STRUCT } from "./tables.ts";

/** Most rows of a chunk. */
export const GLA_CHUNK = 16;

const THREADS = 64;

/**
 * Bindings `k`, `logDecay` [rows, width] f32 with strides and offsets (`width` is kvHeads * keySize), `tiles`, `decayed`
 * [rows, 2, width] f32: decays from the chunk's beginning, then keys that have decayed until its end.
 */
export function linearGlaDecay(): Kernel {
  return defineKernel({
    name: "linearGlaDecay",
    parameters: {
      tiles: "u32",
      width: "u32",
      kStride: "u32",
      kOffset: "u32",
      decayStride: "u32",
      decayOffset: "u32",
    },
    bindings: [
      read("k", "array<f32>"),
      read("logDecay", "array<f32>"),
      read("tiles", "array<Tile>"),
      write("decayed", "array<f32>"),
    ],
    grid: ({ tiles, width }) => [chunkWorkgroups(tiles, GLA_CHUNK), Math.ceil(width / THREADS), 1],
    body: `
${TILE_STRUCT}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  ${findChunk(GLA_CHUNK)}
  let column = group.y * ${THREADS}u + local;
  if (column >= params.width) { return; }
  let gateStart = first * params.decayStride + params.decayOffset + column;
  let keyStart = first * params.kStride + params.kOffset + column;
  let decayedStart = first * 2u * params.width + column;
  // Rows over the end do not decay.
  ${
      unroll(GLA_CHUNK, (i) =>
        `let g${i} = select(0.0, logDecay[gateStart + min(${i}u, count - 1u) * params.decayStride], ${i}u < count);`)
    }
  var sum = 0.0;
  ${
      unroll(GLA_CHUNK, (i) =>
        `sum += g${i};
  if (${i}u < count) { decayed[decayedStart + ${i}u * 2u * params.width] = exp(sum); }`)
    }
  sum = 0.0;
  ${
      unroll(GLA_CHUNK, (n) => {
        const i = GLA_CHUNK - 1 - n;
        return `if (${i}u < count) {
    decayed[decayedStart + (${i}u * 2u + 1u) * params.width] = exp(sum) * k[keyStart + ${i}u * params.kStride];
  }
  sum += g${i};`;
      })
    }
}
`,
  });
}
