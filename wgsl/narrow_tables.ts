// Fits tables that the host wrote for the most rows there may be to the rows that were counted: these stand at the end of
// their room.
//
//   room of a sequence    | absent ...... | rows: span.x ... span.x + span.y |
//   tiles                 |   0   |   1   |   2   |   3   |                      tile 1 loses its first rows, tile 0 all
//
// One invocation a tile, or a sequence.

import { defineKernel, type Kernel, read, write } from "./kernel.ts";
import { SELECTION_STRUCT, TILE_STRUCT } from "./tables.ts";

const THREADS = 64;

/**
 * Takes the rows before `spans[sequence].x` out of every tile, of which there are `tiles`: its `first` and `output` go as
 * far on as its `count` falls.
 */
export function narrowTiles(): Kernel {
  return defineKernel({
    name: "narrowTiles",
    parameters: { tiles: "u32" },
    bindings: [read("spans", "array<vec2<u32>>"), write("tiles", "array<Tile>")],
    grid: ({ tiles }) => [Math.ceil(tiles / THREADS), 1, 1],
    body: `
${TILE_STRUCT}

@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.tiles) { return; }
  var tile = tiles[id.x];
  let absent = min(max(spans[tile.sequence].x, tile.first) - tile.first, tile.count);
  tile.first += absent;
  tile.output += absent;
  tile.count -= absent;
  tiles[id.x] = tile;
}
`,
  });
}

/** Sets `first` and `count` of every sequence's selection to those of its span; `window` and `scored` must not be more. */
export function narrowSelections(): Kernel {
  return defineKernel({
    name: "narrowSelections",
    parameters: { sequences: "u32" },
    bindings: [read("spans", "array<vec2<u32>>"), write("selections", "array<Selection>")],
    grid: ({ sequences }) => [Math.ceil(sequences / THREADS), 1, 1],
    body: `
${SELECTION_STRUCT}

@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.sequences) { return; }
  selections[id.x].first = spans[id.x].x;
  selections[id.x].count = spans[id.x].y;
}
`,
  });
}
