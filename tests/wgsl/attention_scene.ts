// A made-up moment of a step for the attention kernels: packed rows of several sequences, a cache with ragged extents
// at arbitrary places, and the same as plain objects for the oracle.

import { EXTENT_WORDS, ROW_WORDS, STATE_WORDS, TILE_WORDS } from "../../wgsl/tables.ts";
import { randomArray, store, widen } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import type { Slot } from "../oracles/attention.ts";

/** What one sequence brings into the step. */
export interface SequenceSetup {
  /** Rows of this step. */
  readonly rows: number;
  /** Slots from earlier steps; with `ragged`, every head has up to `ragged` fewer. */
  readonly past: number;
  /** Whether it is done: its rows are still in the step, but not in the cache. */
  readonly done?: boolean;
  /** Position of its first row. Default: after the past, or amid a shuffled one. No slot of the past has position 0. */
  readonly position?: number;
}

/** What a scene is made of. */
export interface SceneSetup {
  readonly dtype: "f16" | "f32";
  readonly headSize: number;
  readonly kvHeads: number;
  readonly groupSize: number;
  readonly sequences: readonly SequenceSetup[];
  /** First KV head in the arena, and how many. Default: all. */
  readonly firstHead?: number;
  readonly arenaHeads?: number;
  /** How much lengths differ between heads. Default: 0. */
  readonly ragged?: number;
  /** Whether old slots are out of order, some of them of later positions than the rows. Default: false. */
  readonly shuffled?: boolean;
  readonly seed: number;
}

export interface Row {
  readonly sequence: number;
  readonly position: number;
  readonly index: number;
}

export interface Extent {
  readonly base: number;
  readonly capacity: number;
  readonly start: number;
  readonly length: number;
  readonly positions: number;
}

/** Layers in every scene, and the one whose arena is there. */
export const LAYERS = 3;
export const LAYER = 1;

/** What stands in outputs before a kernel runs: an element that it must not write is expected to keep it. */
export const POISON = Infinity;

/** A float output before the kernel runs. */
export function poisoned(length: number): Float32Array {
  return new Float32Array(length).fill(POISON);
}

/** Whole numbers in [0, below), the same on every machine. */
export function integers(seed: number): (below: number) => number {
  const values = randomArray(4096, seed);
  let next = 0;
  return (below) => Math.floor((values[next++ % values.length] + 1) / 2 * below);
}

export function encodeRows(rows: readonly Row[]): Uint32Array {
  const table = new Uint32Array(rows.length * ROW_WORDS);
  rows.forEach(({ sequence, position, index }, i) =>
    table.set([12345, sequence, position, index], i * ROW_WORDS)
  );
  return table;
}

export function encodeExtents(extents: readonly Extent[]): Uint32Array {
  const table = new Uint32Array(extents.length * EXTENT_WORDS);
  extents.forEach((e, i) =>
    table.set([e.base, e.capacity, e.start, e.length, e.positions], i * EXTENT_WORDS)
  );
  return table;
}

export function encodeStates(done: readonly boolean[]): Uint32Array {
  const table = new Uint32Array(done.length * STATE_WORDS);
  // Many more tokens may follow.
  done.forEach((value, i) => table.set([value ? 1 : 0, 0, 0, 0, 1000], i * STATE_WORDS));
  return table;
}

/** Tiles of at most `most` rows over packed rows; outputs stand like their rows. */
export function encodeTiles(rows: readonly Row[], most: number): Uint32Array {
  const tiles: number[][] = [];
  rows.forEach(({ sequence }, i) => {
    const last = tiles.at(-1);
    if (last && last[2] === sequence && last[1] < most) last[1]++;
    else tiles.push([i, 1, sequence, i]);
  });
  const table = new Uint32Array(tiles.length * TILE_WORDS);
  tiles.forEach((tile, i) => table.set(tile, i * TILE_WORDS));
  return table;
}

/** A step in the middle of attention: this step's keys and values are in the cache. */
export interface Scene {
  readonly setup: SceneSetup;
  readonly heads: number;
  readonly firstHead: number;
  readonly arenaHeads: number;
  readonly rows: readonly Row[];
  /** By table index: (layer * sequences + sequence) * kvHeads + head. */
  readonly extents: readonly Extent[];
  readonly slotPositions: Uint32Array;
  readonly qStride: number;
  readonly qOffset: number;
  readonly scale: number;
  /** Longest length of an extent. */
  readonly longest: number;
  /** Makes queries and the arenas of {@linkcode LAYER}: NaN wherever there is no query, no live slot. */
  readonly q: () => Float32Array;
  readonly keys: () => HostArray;
  readonly values: () => HostArray;
}

/** Extent of a KV head of {@linkcode LAYER}. */
export function extentOf(scene: Scene, sequence: number, head: number): Extent {
  const { kvHeads, sequences } = scene.setup;
  return scene.extents[(LAYER * sequences.length + sequence) * kvHeads + head];
}

/** Positions of `count` old slots of a sequence: growing with gaps. */
function pastPositions(count: number, random: (below: number) => number): number[] {
  const positions: number[] = [];
  for (let i = 0, position = 1 + random(5); i < count; i++, position += 1 + random(3)) {
    positions.push(position);
  }
  return positions;
}

function shuffle(values: number[], random: (below: number) => number): void {
  for (let i = values.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [values[i], values[j]] = [values[j], values[i]];
  }
}

/** Makes a scene; the same each time. */
export function makeScene(setup: SceneSetup): Scene {
  const { dtype, headSize, kvHeads, groupSize, sequences, ragged = 0, shuffled = false, seed } = setup;
  const firstHead = setup.firstHead ?? 0;
  const arenaHeads = setup.arenaHeads ?? kvHeads - firstHead;
  const heads = kvHeads * groupSize;
  const random = integers(seed);

  // Rows: the sequences in reverse order, so that a sequence's number is not its place.
  const pasts = sequences.map(({ past }) => pastPositions(past, random));
  const firsts = pasts.map((past, s) => {
    const { position } = sequences[s];
    if (position !== undefined) return position;
    if (!shuffled) return (past.at(-1) ?? -1) + 1 + random(4);
    return past[Math.floor(past.length / 2)] ?? 0;
  });
  const rows: Row[] = [];
  for (let s = sequences.length - 1; s >= 0; s--) {
    for (let i = 0; i < sequences[s].rows; i++) rows.push({ sequence: s, position: firsts[s] + i, index: i });
  }

  const extents: Extent[] = [];
  const positionTable: number[] = [7, 7, 7];
  const fills: { base: number; length: number }[] = [];
  let arenaSlots = 3;
  for (let layer = 0; layer < LAYERS; layer++) {
    for (let s = 0; s < sequences.length; s++) {
      for (let head = 0; head < kvHeads; head++) {
        const past = pasts[s].slice();
        if (shuffled) shuffle(past, random);
        past.splice(0, Math.min(past.length, random(ragged + 1)));
        const { done = false, rows: count } = sequences[s];
        const start = past.length;
        const length = start + (done ? 0 : count);
        const here = layer === LAYER && head >= firstHead && head < firstHead + arenaHeads;
        const capacity = length + random(9);
        extents.push({
          base: here ? arenaSlots : random(100),
          capacity,
          start,
          length,
          positions: positionTable.length,
        });
        positionTable.push(...past);
        for (let i = start; i < capacity; i++) positionTable.push(i < length ? firsts[s] + i - start : 0);
        for (let i = random(4); i > 0; i--) positionTable.push(0);
        if (!here) continue;
        fills.push({ base: arenaSlots, length });
        arenaSlots += capacity + random(5);
      }
    }
  }

  const arena = (of: number): HostArray => {
    const content = new Float32Array((arenaSlots + 2) * headSize).fill(NaN);
    fills.forEach(({ base, length }, i) =>
      content.set(randomArray(length * headSize, seed * 1000 + 2 * i + of), base * headSize)
    );
    return store(content, dtype);
  };
  const qOffset = 8;
  const qStride = qOffset + heads * headSize + 4;
  return {
    setup,
    heads,
    firstHead,
    arenaHeads,
    rows,
    extents,
    slotPositions: Uint32Array.from(positionTable),
    qStride,
    qOffset,
    scale: 1 / Math.sqrt(headSize),
    longest: Math.max(0, ...extents.map(({ length }) => length)),
    q() {
      const q = new Float32Array(rows.length * qStride).fill(NaN);
      for (let r = 0; r < rows.length; r++) {
        q.set(randomArray(heads * headSize, seed * 777 + r, 3), r * qStride + qOffset);
      }
      return q;
    },
    keys: () => arena(0),
    values: () => arena(1),
  };
}

/** Bindings that both attention kernels read. */
export function sceneData(scene: Scene): Record<string, HostArray> {
  return {
    q: scene.q(),
    keys: scene.keys(),
    values: scene.values(),
    slotPositions: scene.slotPositions,
    rowTable: encodeRows(scene.rows),
    extents: encodeExtents(scene.extents),
  };
}

/** Parameters that both attention kernels take. */
export function sceneParameters(scene: Scene): Record<string, number> {
  return {
    heads: scene.heads,
    kvHeads: scene.setup.kvHeads,
    layer: LAYER,
    sequences: scene.setup.sequences.length,
    firstHead: scene.firstHead,
    arenaHeads: scene.arenaHeads,
    qStride: scene.qStride,
    qOffset: scene.qOffset,
    scale: scene.scale,
  };
}

/** A scene's data as the oracle sees them. */
export interface SceneView {
  /** The live slots of an extent of {@linkcode LAYER}. */
  slots(sequence: number, head: number): Slot[];
  query(row: number, head: number): Float64Array;
}

/** Views the data of {@linkcode sceneData}. */
export function sceneView(scene: Scene, data: Record<string, HostArray>): SceneView {
  const { headSize } = scene.setup;
  const keys = widen(data.keys);
  const values = widen(data.values);
  return {
    slots(sequence, head) {
      const { base, length, positions } = extentOf(scene, sequence, head);
      return Array.from({ length }, (_, i) => {
        const at = (base + i) * headSize;
        return {
          position: scene.slotPositions[positions + i],
          key: keys.subarray(at, at + headSize),
          value: values.subarray(at, at + headSize),
        };
      });
    },
    query(row, head) {
      const at = row * scene.qStride + scene.qOffset + head * headSize;
      return Float64Array.from((data.q as Float32Array).subarray(at, at + headSize));
    },
  };
}

/** Query heads whose KV head is in the arena. */
export function queryHeads(scene: Scene): number[] {
  const { groupSize } = scene.setup;
  return Array.from({ length: scene.arenaHeads * groupSize }, (_, i) => scene.firstHead * groupSize + i);
}

/** Query-key pairs that the rows see, over the arena's query heads. */
export function visiblePairs(scene: Scene): number {
  let pairs = 0;
  for (const row of scene.rows) {
    for (let head = scene.firstHead; head < scene.firstHead + scene.arenaHeads; head++) {
      const { positions, length } = extentOf(scene, row.sequence, head);
      for (let i = 0; i < length; i++) {
        if (scene.slotPositions[positions + i] <= row.position) pairs += scene.setup.groupSize;
      }
    }
  }
  return pairs;
}

/** Bytes of the live slots in the arena. */
export function liveBytes(scene: Scene): number {
  const { headSize, dtype, sequences } = scene.setup;
  let slots = 0;
  for (let s = 0; s < sequences.length; s++) {
    for (let head = scene.firstHead; head < scene.firstHead + scene.arenaHeads; head++) {
      slots += extentOf(scene, s, head).length;
    }
  }
  return slots * headSize * 2 * (dtype === "f16" ? 2 : 4);
}
