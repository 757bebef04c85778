// The part of the chunked delta rule that every row reads of its own chunk, added to what it read of the state before:
//
//   O_i += sum over j <= i of exp(G_i - G_j) (q_i . k_j) R_j
//
// A workgroup owns a chunk and a query head. First the weights of all R_j (linear_delta_chunk.ts draws how), then the
// outputs: an invocation has one word of 4 columns of every 8th row (of every 16th or 32nd where values are short).

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import {
  DELTA_CHUNK,
  DELTA_THREADS,
  deltaDeclarations,
  deltaProducts,
  LOAD_LOGS,
} from "./linear_delta_chunk.ts";
import {
  checkStateHeadSizes,
  chunkWorkgroups,
  findChunk,
  outputLanes,
  type StateHeadSizes,
} from "./state_heads.ts";
import { TILE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearDeltaOutput}. */
export interface LinearDeltaOutputSpec extends StateHeadSizes {
  /** Whether the state decays. */
  readonly decay: boolean;
}

const COMPONENTS = ["x", "y", "z", "w"];

/**
 * Bindings `q`, `k` [rows, ..] f32 and (with `decay`) `logDecay` [rows, ..] by KV head, with strides and offsets; `solved` of
 * linearDeltaScan; `tiles`; `out` [rows, heads * valueSize], which is added to.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearDeltaOutput(spec: LinearDeltaOutputSpec): Kernel {
  checkStateHeadSizes(spec);
  const { keySize, valueSize, decay } = spec;
  const valueWords = valueSize / 4;
  const solvedWords = (keySize + valueSize) / 4;
  const lanes = outputLanes(valueWords);
  const down = DELTA_THREADS / lanes;
  const rows = DELTA_CHUNK / down;
  const body = `
${TILE_STRUCT}
${deltaDeclarations(["q", "k"], decay)}
@compute @workgroup_size(${DELTA_THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  ${findChunk(DELTA_CHUNK)}
  let head = group.y;
  let kvHead = head / (params.heads / params.kvHeads);
  let queryStart = first * params.qStride + params.qOffset + head * ${keySize}u;
  let keyStart = first * params.kStride + params.kOffset + kvHead * ${keySize}u;
  ${decay ? LOAD_LOGS : ""}
  ${
    deltaProducts(`${keySize / 4}u`, "q", "k", {
      q: ["queryStart", "params.qStride"],
      k: ["keyStart", "params.kStride"],
    })
  }
  ${decay ? "sums *= decays(w, i);" : ""}
  let j = vec4<u32>(4u * w) + vec4<u32>(0u, 1u, 2u, 3u);
  products[local] = select(vec4<f32>(), sums, j <= vec4<u32>(i));
  workgroupBarrier();
  let lineOut = local / ${lanes}u;
  for (var word = local % ${lanes}u; word < ${valueWords}u; word += ${lanes}u) {
    ${unroll(rows, (r) => `var o${r} = vec4<f32>();`)}
    for (var source = 0u; source < count; source += 4u) {
      ${
    unroll(rows, (r) => `let p${r} = products[(lineOut + ${r * down}u) * ${DELTA_CHUNK / 4}u + source / 4u];`)
  }
      ${
    unroll(4, (c) =>
      `{
        let row = first + min(source + ${c}u, count - 1u);
        let update = solved[(row * params.kvHeads + kvHead) * ${solvedWords}u + ${keySize / 4}u + word];
        ${unroll(rows, (r) => `o${r} = fma(vec4<f32>(p${r}.${COMPONENTS[c]}), update, o${r});`)}
      }`)
  }
    }
    ${
    unroll(rows, (r) =>
      `if (lineOut + ${r * down}u < count) {
      out[((first + lineOut + ${r * down}u) * params.heads + head) * ${valueWords}u + word] += o${r};
    }`)
  }
  }
}
`;
  return defineKernel({
    name: `linearDeltaOutput ${keySize} ${valueSize}${decay ? " decay" : ""}`,
    parameters: {
      tiles: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
      ...(decay ? { decayStride: "u32" as const, decayOffset: "u32" as const } : {}),
    },
    bindings: [
      read("q", "array<f32>"),
      read("k", "array<f32>"),
      ...(decay ? [read("logDecay", "array<f32>")] : []),
      read("solved", "array<vec4<f32>>"),
      read("tiles", "array<Tile>"),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ tiles, heads }) => [chunkWorkgroups(tiles, DELTA_CHUNK), heads, 1],
    body,
  });
}
