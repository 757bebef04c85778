// Cases of nucleusBudget, narrowTiles, narrowSelections and evictNucleus.

import { evictNucleus } from "../../wgsl/evict_nucleus.ts";
import { narrowSelections, narrowTiles } from "../../wgsl/narrow_tables.ts";
import { ATTENTION_UNITS, nucleusBudget } from "../../wgsl/nucleus_budget.ts";
import { NONE, NUCLEUS_WORDS, ROW_WORDS, SELECTION_WORDS, TILE_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, randomArray, type Variant } from "../harness/kernel_case.ts";
import { nucleusOracle } from "../oracles/nucleus.ts";
import { encodeStates } from "./attention_scene.ts";
import { encodeCaches, LAYER, LAYERS, makeScene, type SequenceSetup } from "./eviction_scene.ts";

const POISON = 0xdeadbeef;

/** How scores lie: near each other, some of them almost everything, few different ones, none at all. */
type Lie = "even" | "steep" | "steps" | "equal" | "zero";

/** Scores that are 1 together at the most. */
function scoresOf(lie: Lie, count: number, seed: number): Float32Array {
  const random = randomArray(count, seed);
  const raw = random.map((x, j) => {
    if (lie === "even") return 1 + x / 2;
    if (lie === "steep") return Math.exp(12 * x);
    if (lie === "steps") return Math.floor(3 * (x + 1)) / 3;
    // Of some of them there is nothing.
    return lie === "equal" && j % 5 < 4 ? 1 : 0;
  });
  const all = raw.reduce((sum, value) => sum + value, 0) || 1;
  return raw.map((value) => 0.9 * value / all);
}

/** A sequence and what it keeps. */
interface Chosen {
  readonly context: number;
  readonly share: number;
  readonly lie?: Lie;
  readonly sinks?: number;
  readonly window?: number;
  readonly least?: number;
  /** Most before the window. Default: all. */
  readonly keep?: number;
}

const CHOSEN: readonly (readonly Chosen[])[] = [
  [{ context: 1, share: 0.5 }, { context: 0, share: 0.5 }, { context: 1, share: 0.5, window: 0, sinks: 4 }],
  [
    { context: 37, share: 0.9 },
    { context: 257, share: 0.37, lie: "steep" },
    { context: 256, share: 0.613, lie: "steps", window: 31 },
    { context: 255, share: 0.37, lie: "equal", window: 0 },
    { context: 300, share: 0.8, sinks: 4, lie: "steep" },
    { context: 300, share: 0.00001, sinks: 7, lie: "even" },
    { context: 100, share: 1, keep: 60 },
    { context: 100, share: 1.5 },
    { context: 100, share: 0 },
    { context: 100, share: 0.9, lie: "zero", least: 3 },
    { context: 100, share: 0.3, least: 70 },
    { context: 100, share: 0.3, least: 170 },
    { context: 100, share: 0.9, keep: 20 },
    { context: 100, share: 0.9, keep: 20, least: 50 },
    { context: 100, share: 0.5, keep: 3, sinks: 8 },
  ],
  [
    { context: 5003, share: 0.7, sinks: 4, window: 700 },
    { context: 5003, share: 0.95, lie: "steep" },
    { context: 4099, share: 0.413, lie: "equal" },
  ],
];

/** Table of rules by sequence and layer; those of other layers would keep everything. */
function encodeRules(
  sequences: readonly { window?: number; minimum?: number; share: number; least?: number; most?: number }[],
  layers: number,
  layer: number,
): Uint32Array {
  const words = new Uint32Array(sequences.length * layers * NUCLEUS_WORDS);
  const floats = new Float32Array(words.buffer);
  for (let i = 0; i < sequences.length * layers; i++) {
    const { window = 1, minimum = 0, share, least = 0, most = NONE } = sequences[Math.floor(i / layers)];
    const own = i % layers === layer;
    words.set([own ? window : 0, own ? minimum : 0, 0, own ? least : 0, own ? most : 0], i * NUCLEUS_WORDS);
    floats[i * NUCLEUS_WORDS + 2] = own ? share : 1;
  }
  return words;
}

/** Throws where rounding could decide. */
function clear(gap: number, name: string): void {
  if (gap < 1e-6) throw new Error(`A choice of the case ${name} is near a tie: ${gap}`);
}

function budgetCase(sequences: readonly Chosen[], largest: number, seed: number): KernelCase {
  let first = 2;
  const placed = sequences.map((sequence, s) => {
    const { context, window = 3, keep = context, lie = "even" } = sequence;
    const own = { ...sequence, first, window, keep, scores: scoresOf(lie, context, seed + s) };
    first += context + window + 3;
    return own;
  });
  const layers = 3;
  const layer = 1;
  return {
    family: "nucleusBudget",
    name: `at most ${largest}, ${placed.map(({ share, context }) => `${share} of ${context}`)}`,
    kernel: nucleusBudget(),
    parameters: { sequences: placed.length, layer, ruleLayers: layers, units: ATTENTION_UNITS / largest },
    data: () => {
      const scores = new Float32Array(first).fill(3e38);
      for (const own of placed) scores.set(own.scores, own.first);
      const selections = new Uint32Array(placed.length * SELECTION_WORDS);
      placed.forEach(({ first, context, window, sinks = 0, keep }, s) =>
        selections.set([first, context + window, window, 1, sinks, keep, POISON, POISON], s * SELECTION_WORDS)
      );
      return {
        scores,
        selections,
        rules: encodeRules(placed, layers, layer),
        keeps: new Uint32Array(placed.length + 3).fill(POISON),
      };
    },
    expected: ({ keeps }) => {
      const wanted = Uint32Array.from(keeps);
      placed.forEach(({ scores, share, sinks = 0, least = 0, keep }, s) => {
        const most = Math.min(keep, scores.length);
        const limits = { share: Math.fround(share), sinks: Math.min(sinks, most), least, most };
        const { kept, gap } = nucleusOracle(scores, limits);
        if (share > 0 && sequences[s].lie !== "zero" && scores.length > 1) clear(gap, `${s}`);
        wanted[s] = kept.length;
      });
      return { keeps: wanted };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 4 * first },
  };
}

/** Room of each sequence, and how many rows there are in it. */
const ROOMS: readonly (readonly [number, number])[] = [
  [1, 1],
  [0, 0],
  [200, 77],
  [64, 64],
  [130, 2],
  [65, 1],
  [9, 0],
];

function tilesCase(): KernelCase {
  const tiles: number[] = [];
  const narrowed: number[] = [];
  const spans: number[] = [];
  let first = 5;
  ROOMS.forEach(([room, rows], sequence) => {
    for (let at = 0; at < room; at += 64) {
      const count = Math.min(64, room - at);
      tiles.push(first + at, count, sequence, 1000 + first + at);
      const present = Array.from({ length: count }, (_, i) => at + i).filter((row) => row >= room - rows);
      const from = present[0] ?? at + count;
      narrowed.push(first + from, present.length, sequence, 1000 + first + from);
    }
    spans.push(first + room - rows, rows);
    first += room;
  });
  const rest = [7, 9, 0, 1];
  return {
    family: "narrowTiles",
    name: `rooms ${ROOMS.map(([room]) => room)}`,
    kernel: narrowTiles(),
    parameters: { tiles: tiles.length / TILE_WORDS },
    data: () => ({ spans: Uint32Array.from(spans), tiles: Uint32Array.from([...tiles, ...rest]) }),
    expected: () => ({ tiles: Uint32Array.from([...narrowed, ...rest]) }),
    tolerance: 0,
    work: { flops: 0, bytes: 8 * tiles.length },
  };
}

function selectionsCase(sequences: number): KernelCase {
  const table = (first: (s: number) => number[]) =>
    Uint32Array.from({ length: sequences + 1 }, (_, s) => s).reduce((words, s) => {
      words.set([...(s < sequences ? first(s) : [1, 2]), 3, 4, 5, 6, 7 + s, 8], s * SELECTION_WORDS);
      return words;
    }, new Uint32Array((sequences + 1) * SELECTION_WORDS));
  return {
    family: "narrowSelections",
    name: `${sequences} sequences`,
    kernel: narrowSelections(),
    parameters: { sequences },
    data: () => ({
      spans: Uint32Array.from({ length: 2 * sequences + 2 }, (_, i) => 10 * i),
      selections: table((s) => [900 + s, 90 + s]),
    }),
    expected: () => ({ selections: table((s) => [20 * s, 20 * s + 10]) }),
    tolerance: 0,
    work: { flops: 0, bytes: 0 },
  };
}

/** A sequence amid generation. */
interface Passing extends SequenceSetup {
  readonly share: number;
  readonly lie?: Lie;
  readonly window: number;
  readonly minimum?: number;
  readonly most?: number;
  /** The last token but one: no row follows. */
  readonly last?: boolean;
}

const PASSES: readonly (readonly Passing[])[] = [
  [{ capacity: 9, length: 1, window: 1, share: 0.5 }],
  [
    { capacity: 90, length: 67, freed: 5, window: 20, share: 0.8 },
    { capacity: 90, length: 67, freed: 5, window: 20, share: 0.37, lie: "steep", frozen: 900 },
    { capacity: 90, length: 67, freed: 5, window: 20, share: 0.613, lie: "steps" },
    { capacity: 90, length: 67, window: 20, share: 0.413, lie: "equal" },
    { capacity: 90, length: 67, window: 20, share: 0.3, minimum: 50 },
    { capacity: 90, length: 67, window: 20, share: 0.3, minimum: 500 },
    { capacity: 90, length: 67, window: 20, share: 0.9, lie: "zero", minimum: 20 },
    { capacity: 90, length: 67, window: 20, share: 0.3, done: true },
    { capacity: 90, length: 67, window: 20, share: 0.3, last: true },
    { capacity: 90, length: 67, window: 20, share: 0.3, idle: true },
    { capacity: 90, length: 67, window: 900, share: 0.3 },
    { capacity: 90, length: 67, window: 1, share: 1 },
    // The next one needs room, though all of it might stay.
    { capacity: 67, length: 67, window: 21, share: 1, most: 67 },
    { capacity: 67, length: 67, freed: 9, window: 20, share: 0.95, lie: "equal", minimum: 66, most: 40 },
    { capacity: 20, length: 20, window: 19, share: 1, most: 11 },
  ],
  [
    { capacity: 1400, length: 1301, freed: 17, window: 200, share: 0.7 },
    { capacity: 1301, length: 1301, window: 200, share: 0.9, lie: "steep", most: 1301 },
  ],
];

function passCase(
  sequences: readonly Passing[],
  options: { kvHeads: number; sinks: number; delay: number; seed: number },
): KernelCase {
  const { kvHeads, sinks, delay, seed } = options;
  const scene = makeScene({ kvHeads, heads: "mean", sequences, seed });
  scene.caches.forEach((cache, i) => {
    const s = Math.floor(i / kvHeads) % sequences.length;
    scoresOf(sequences[s].lie ?? "even", cache.capacity, seed + s).forEach((x, slot) =>
      cache.scores[slot] = x
    );
  });
  const rows = sequences.map((_, s) => s).filter((s) => !sequences[s].idle).reverse();
  const before = encodeCaches(scene.caches, scene.turns, kvHeads);
  return {
    family: "evictNucleus",
    name: `${kvHeads} heads, sinks ${sinks}, lengths ${sequences.map(({ length }) => length)}`,
    kernel: evictNucleus(),
    parameters: {
      rows: rows.length,
      kvHeads,
      layer: LAYER,
      layers: 1,
      sequences: sequences.length,
      ruleLayers: LAYERS,
      sinks,
      delay,
    },
    data: () => {
      const states = encodeStates(sequences.map(({ done = false }) => done));
      sequences.forEach(({ last }, s) => {
        if (last) states[s * states.length / sequences.length + 4] = 1;
      });
      return {
        extents: before.extents,
        slotPositions: before.slotPositions,
        freed: before.freed,
        slotScores: Float32Array.from(before.slotScores),
        states,
        rowTable: Uint32Array.from(rows.flatMap((s) => [NONE, s, scene.positions[s], 0])).subarray(
          0,
          rows.length * ROW_WORDS,
        ),
        rules: encodeRules(sequences, LAYERS, LAYER),
      };
    },
    expected: () => {
      const caches = scene.caches.slice();
      for (const s of rows) {
        const { done, last, window, share, minimum = 0, most = Infinity } = sequences[s];
        if (done || last) continue;
        const first = (LAYER * sequences.length + s) * kvHeads;
        const cache = structuredClone(scene.caches[first]);
        const limit = Math.max(0, scene.positions[s] + 1 - window);
        const live = cache.positions.flatMap((position, slot) =>
          position === undefined ? [] : [{ position, slot }]
        );
        const context = live.filter(({ position }) => position < limit).sort((a, b) =>
          a.position - b.position
        );
        const newest = live.length - context.length;
        const { kept, gap } = nucleusOracle(context.map(({ slot }) => Math.fround(cache.scores[slot])), {
          share: Math.fround(share),
          sinks: context.filter(({ position }) => position < sinks).length,
          least: Math.max(0, minimum - newest),
          most: Math.max(0, most - 1 - newest),
        });
        if (share > 0 && sequences[s].lie !== "zero" && context.length > 1) clear(gap, `${s}`);
        const going = context.filter((_, j) => !kept.includes(j)).sort((a, b) => a.slot - b.slot);
        if (going.length > 0 && cache.freed.length < delay) {
          cache.frozen = Math.max(cache.frozen, scene.positions[s] + 1 + delay - cache.freed.length);
        }
        for (const { slot } of going) {
          cache.positions[slot] = undefined;
          cache.freed.push(slot);
        }
        caches.fill(cache, first, first + kvHeads);
      }
      const { extents, slotPositions, freed } = encodeCaches(caches, scene.turns, kvHeads, before);
      return { extents, slotPositions, freed };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 8 * scene.caches.reduce((sum, { positions }) => sum + positions.length, 0) },
  };
}

/** Correctness cases. The kernels use no subgroups and no stored type. */
export function cases(_variant: Variant): KernelCase[] {
  return [
    ...CHOSEN.flatMap((sequences, i) =>
      [1, 1.2, 50].map((largest) => budgetCase(sequences, largest, 20 * i))
    ),
    tilesCase(),
    selectionsCase(1),
    selectionsCase(67),
    ...PASSES.flatMap((sequences, i) => [
      passCase(sequences, { kvHeads: 1, sinks: 0, delay: 0, seed: 3 + i }),
      passCase(sequences, { kvHeads: 3, sinks: 5, delay: 7, seed: 13 + i }),
    ]),
  ];
}
