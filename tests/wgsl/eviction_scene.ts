// Made-up caches amid generation for the kernels that evict, as plain objects for the oracle and as tables.

import { EXTENT_WORDS, NONE, TURN_WORDS } from "../../wgsl/tables.ts";
import { randomArray } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import { blockSums, type HeadCache, type Turn } from "../oracles/eviction.ts";
import { integers } from "./attention_scene.ts";

/** Layers in every scene, and the one that kernels of a layer are run for. */
export const LAYERS = 2;
export const LAYER = 1;

/** What one sequence has before the step's row. */
export interface SequenceSetup {
  readonly capacity: number;
  /** Slots in use, freed ones among them. */
  readonly length: number;
  /** How many of those are free. Default: 0. */
  readonly freed?: number;
  readonly done?: boolean;
  /** Whether it has a row in the step. Default: true. */
  readonly idle?: boolean;
  /** Positions between one token and the next. Default: 2. */
  readonly step?: number;
  /** How its generated tokens are numbered; default: none of them are compressed. */
  readonly turn?: Turn;
  /** Entries of the table of windows by the number of the row. */
  readonly window?: number;
  /** Whether the block before the window is compressed. */
  readonly compress?: boolean;
  /** First position that is not frozen. Default: a half of the row's. */
  readonly frozen?: number;
}

/** What a scene is made of. */
export interface SceneSetup {
  readonly kvHeads: number;
  /** Whether each KV head has slots of its own. */
  readonly heads: "each" | "mean";
  readonly sequences: readonly SequenceSetup[];
  /** Whether scores are few, so that many are equal. */
  readonly ties?: boolean;
  readonly seed: number;
}

/** The caches, and rows that no cache has yet. */
export interface Scene {
  readonly setup: SceneSetup;
  /** By table index, (layer * sequences + sequence) * kvHeads + head; heads that share slots have the same object. */
  readonly caches: readonly HeadCache[];
  /** Position of each sequence's row. */
  readonly positions: readonly number[];
  readonly turns: readonly Turn[];
}

/** A cache of tokens in no order, with some slots free. */
function makeCache(
  { capacity, length, freed = 0, step = 2, frozen }: SequenceSetup,
  row: number,
  ties: boolean,
  seed: number,
): HeadCache {
  const random = integers(seed);
  const shuffled = (count: number): number[] => {
    const values = Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = random(i + 1);
      [values[i], values[j]] = [values[j], values[i]];
    }
    return values;
  };
  const positions: (number | undefined)[] = shuffled(length).map((i) =>
    row - step * (length - i) + random(step)
  );
  const free = shuffled(length).slice(0, freed);
  for (const slot of free) positions[slot] = undefined;
  const scores = Array.from(randomArray(capacity, seed), (value) => ties ? Math.round(2 * value) / 2 : value);
  return {
    capacity,
    positions,
    scores,
    // What some earlier row saw, for slots that are written anew as well.
    seen: scores.map((value) => [{ row: row - 1, p: Math.abs(value) }]),
    start: length - 1,
    freed: free,
    freeFirst: random(capacity),
    frozen: frozen ?? Math.floor(row / 2),
  };
}

/** Makes a scene; the same each time. */
export function makeScene(setup: SceneSetup): Scene {
  const { kvHeads, heads, sequences, ties = false, seed } = setup;
  const positions = sequences.map(({ length, step = 2 }, s) => length * step + 3 * s);
  const caches: HeadCache[] = [];
  for (let i = 0; i < LAYERS * sequences.length * kvHeads; i++) {
    const s = Math.floor(i / kvHeads) % sequences.length;
    caches.push(
      heads === "mean" && i % kvHeads > 0
        ? caches[i - 1]
        : makeCache(sequences[s], positions[s], ties, 1000 * seed + i),
    );
  }
  // Without a turn of its own, a sequence's tokens are all of block 0.
  const turns = sequences.map(({ turn }) => turn ?? { origin: 0, block: 1 << 20 });
  return { setup, caches, positions, turns };
}

/** Tables of caches, floats still in f64. */
export interface Tables {
  readonly extents: Uint32Array;
  readonly slotPositions: Uint32Array;
  readonly freed: Uint32Array;
  readonly slotScores: Float64Array;
  readonly slotSums: Float64Array;
}

/** Where the slots of each cache begin in the tables; heads that share slots share that too. */
export function offsetsOf(caches: readonly HeadCache[]): { offsets: number[]; size: number } {
  const known = new Map<HeadCache, number>();
  let size = 3;
  const offsets = caches.map((cache, i) => {
    const offset = known.get(cache) ?? size;
    if (!known.has(cache)) size += cache.capacity + i % 3;
    known.set(cache, offset);
    return offset;
  });
  return { offsets, size: size + 2 };
}

/** Tables in which no slot is: positions that any row could see and evict, other numbers at random. */
function emptyTables(size: number): Omit<Tables, "extents"> {
  return {
    slotPositions: new Uint32Array(size).fill(6),
    freed: new Uint32Array(size).fill(0xabcdef),
    slotScores: Float64Array.from(randomArray(size, 5)),
    slotSums: Float64Array.from(randomArray(2 * size, 6)),
  };
}

/** Writes caches into tables; what no slot of theirs has stays as it is in `before`. */
export function encodeCaches(
  caches: readonly HeadCache[],
  turns: readonly Turn[],
  kvHeads: number,
  before?: Tables,
): Tables {
  const { offsets, size } = offsetsOf(caches);
  const { slotPositions, freed, slotScores, slotSums } = structuredClone(before ?? emptyTables(size));
  const extents = new Uint32Array(caches.length * EXTENT_WORDS);
  caches.forEach((cache, i) => {
    const { capacity, positions, start, freeFirst, frozen } = cache;
    const offset = offsets[i];
    extents.set(
      [7 * i, capacity, start, positions.length, offset, freeFirst, cache.freed.length, frozen],
      i * EXTENT_WORDS,
    );
    slotPositions.set(positions.map((position) => position ?? NONE), offset);
    cache.freed.forEach((slot, k) => freed[offset + (freeFirst + k) % capacity] = slot);
    slotScores.set(cache.scores, offset);
    const turn = turns[Math.floor(i / kvHeads) % turns.length];
    cache.seen.forEach((_, slot) => slotSums.set(blockSums(cache, slot, turn), 2 * (offset + slot)));
  });
  return { extents, slotPositions, freed, slotScores, slotSums };
}

/** Tables as bindings. */
export function bindingsOf(tables: Tables): Record<string, HostArray> {
  return {
    ...tables,
    slotScores: Float32Array.from(tables.slotScores),
    slotSums: Float32Array.from(tables.slotSums),
  };
}

/** How many tokens of a block each layer keeps, of a sequence. */
export type KeepsOf = (sequence: number) => readonly number[];

/** Tables `turns` and `windows` of a scene: every entry but that of the row would compress, and nothing else keep. */
export function encodeTurns(
  scene: Scene,
  keepsOf: KeepsOf = () => Array.from({ length: LAYERS }, () => 0),
): { turns: Uint32Array; windows: Uint32Array } {
  const turns = new Uint32Array(scene.turns.length * TURN_WORDS);
  const windows: number[] = [0x80000001];
  scene.turns.forEach(({ origin, block }, s) => {
    const { window = 1, compress = false } = scene.setup.sequences[s];
    const rows = Array.from({ length: scene.positions[s] - origin + 2 }, () => 0x80000001);
    rows[scene.positions[s] - origin] = compress ? (window | 0x80000000) >>> 0 : window;
    // The last sequence's entries for layers stand before its others.
    const keeps = keepsOf(s);
    const last = s === scene.turns.length - 1;
    const first = windows.length;
    windows.push(...(last ? [...keeps, ...rows] : [...rows, ...keeps]));
    turns.set(
      [origin, block, last ? first + keeps.length : first, last ? first : first + rows.length],
      s * TURN_WORDS,
    );
  });
  return { turns, windows: Uint32Array.from(windows) };
}
