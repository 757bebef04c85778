// Adds the tokens that leave the window to a sequence's sums, and tells every tile of rows what the sums are before it.
//
// A workgroup owns a sequence (it is that of the sequence's first tile; those of other tiles have nothing to do), a KV
// head, and 64 pieces of the sums; a piece is 4 features x 1 word of the values, or of the word that counts them:
//
//               word 0   word 1  ...  count
//   f 0-3      |  t0   |   t1   | ... | tn |        4 vectors each, in registers from the first token to the last
//   f 4-7      | tn+1  | ...
//
// Tokens are added one by one in the order of their positions. Where a tile begins, the sums over all positions that are
// out of the window of the tile's first row are written out.

import { checkHybrid, hybridLayout, type HybridSizes, packedEntries } from "./hybrid_layout.ts";
import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { POSITION_TAG } from "./position_tag.ts";
import { ROW_SEARCH } from "./row_search.ts";
import { ROW_STRUCT, STATE_STRUCT, TILE_STRUCT } from "./tables.ts";

const THREADS = 64;
const COMPONENTS = ["x", "y", "z", "w"];
/** Tokens loaded at once. */
const AHEAD = 4;

/**
 * `prefixes` [tiles, kvHeads, sums]: the sums over the tokens at positions up to that of the tile's first row less
 * `window`. The sums in `state` go on to those up to the last row's position less `window`, except of sequences that
 * are done. `packed` is what {@linkcode hybridPack} made; tiles of a sequence are consecutive and in order.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function hybridScan(sizes: HybridSizes): Kernel {
  checkHybrid(sizes);
  const { featureSize, window } = sizes;
  const { words, entry, featuresAt, valueAt, sums, head } = hybridLayout(sizes);
  const pieces = featureSize / 4 * (words + 1);
  const add = (feature: string, value: string): string =>
    unroll(4, (c) => `a${c} = fma(vec4<f32>(${feature}.${COMPONENTS[c]}), ${value}, a${c});`);
  const addToEnd = `for (; cursor < end; cursor += ${AHEAD}u) {
      ${
    unroll(AHEAD, (i) =>
      `let from${i} = (packedAt(sequence, span, min(cursor + ${i}u, end - 1u)) * params.kvHeads + kvHead) * ${entry}u;
      let f${i} = select(vec4<f32>(0.0), packed[from${i} + ${featuresAt}u + feature], cursor + ${i}u < end);
      let v${i} = select(packed[from${i} + ${valueAt}u + min(word, ${words - 1}u)], ONE, counts);`)
  }
      ${unroll(AHEAD, (i) => add(`f${i}`, `v${i}`))}
    }
    cursor = end;`;
  const body = `
${ROW_STRUCT}
${TILE_STRUCT}
${STATE_STRUCT}
${POSITION_TAG}
${ROW_SEARCH}
${packedEntries(window)}
const ONE = vec4<f32>(1.0, 0.0, 0.0, 0.0);
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = tiles[group.x].sequence;
  if (group.x > 0u && tiles[group.x - 1u].sequence == sequence) { return; }
  let span = spans[sequence];
  let piece = group.y * ${THREADS}u + local;
  if (piece >= ${pieces}u || span.y == 0u) { return; }
  let kvHead = group.z;
  let feature = piece / ${words + 1}u;
  let word = piece % ${words + 1}u;
  let counts = word == ${words}u;
  let place = 4u * feature * ${words + 1}u + word;
  let base = (sequence * params.kvHeads + kvHead) * ${head}u;
  ${unroll(4, (c) => `var a${c} = state[base + place + ${c * (words + 1)}u];`)}
  let start = i32(rowTable[span.x].position);
  // Positions may have gaps: some of the ring may be older than all packed entries.
  for (var slot = 0u; slot < ${window}u; slot++) {
    let held = base + ${sums}u + slot * ${entry}u;
    let tag = state[held];
    if (hasTag(tag) && i32(taggedPosition(tag)) < start - ${window}) {
      let f = state[held + ${featuresAt}u + feature];
      let v = select(state[held + ${valueAt}u + min(word, ${words - 1}u)], ONE, counts);
      ${add("f", "v")}
    }
  }
  var cursor = 0u;
  var end: u32;
  for (var tile = group.x; tile < params.tiles; tile++) {
    if (tiles[tile].sequence != sequence) { break; }
    if (tiles[tile].count == 0u) { continue; }
    end = entriesUpTo(span, i32(rowTable[tiles[tile].first].position) - ${window});
    ${addToEnd}
    let prefix = (tile * params.kvHeads + kvHead) * ${sums}u + place;
    ${unroll(4, (c) => `prefixes[prefix + ${c * (words + 1)}u] = a${c};`)}
  }
  if (states[sequence].done != 0u) { return; }
  end = entriesUpTo(span, i32(rowTable[span.x + span.y - 1u].position) - ${window});
  ${addToEnd}
  ${unroll(4, (c) => `state[base + place + ${c * (words + 1)}u] = a${c};`)}
}
`;
  return defineKernel({
    name: `hybridScan head ${sizes.headSize} features ${featureSize} window ${window}`,
    parameters: { tiles: "u32", sequences: "u32", kvHeads: "u32" },
    bindings: [
      read("packed", "array<vec4<f32>>"),
      read("rowTable", "array<Row>"),
      read("spans", "array<vec2<u32>>"),
      read("tiles", "array<Tile>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
      write("prefixes", "array<vec4<f32>>"),
    ],
    grid: ({ tiles, kvHeads }) => [tiles, Math.ceil(pieces / THREADS), kvHeads],
    body,
  });
}
