// Cases of the kernels that work on slots while tokens are generated: cacheAppend with reuse, slotScores,
// compressBlock and evictSlot.

import { cacheAppend } from "../../wgsl/cache_append.ts";
import { compressBlock } from "../../wgsl/compress_block.ts";
import { evictSlot, type EvictSlotSpec } from "../../wgsl/evict_slot.ts";
import { slotScores, type SlotScoresSpec } from "../../wgsl/slot_scores.ts";
import { type KernelCase, randomArray, type Variant } from "../harness/kernel_case.ts";
import { append, compress, copyOf, evict, type HeadCache, meanWeight, observe } from "../oracles/eviction.ts";
import { encodeRows, encodeStates, integers, type Row } from "./attention_scene.ts";
import {
  bindingsOf,
  encodeCaches,
  encodeTurns,
  type KeepsOf,
  LAYER,
  LAYERS,
  makeScene,
  type Scene,
  type SceneSetup,
  type SequenceSetup,
  type Tables,
} from "./eviction_scene.ts";

/** Rows of a step, one a sequence that is not idle, the last sequence first. */
function rowsOf({ setup, positions }: Scene): Row[] {
  return setup.sequences.map((_, s) => s).filter((s) => !setup.sequences[s].idle).reverse()
    .map((sequence) => ({ sequence, position: positions[sequence], index: 0 }));
}

/** The scene with the row of every sequence in its caches, the reuse of slots being delayed. */
function appended(scene: Scene, delay: number): Scene {
  const { kvHeads, sequences } = scene.setup;
  const copies = new Map<HeadCache, HeadCache>();
  const caches = scene.caches.map((cache, i) => {
    const s = Math.floor(i / kvHeads) % sequences.length;
    const known = copies.get(cache);
    if (known) return known;
    const copy = copyOf(cache);
    if (sequences[s].done || sequences[s].idle) copy.start = copy.positions.length;
    else append(copy, scene.positions[s], delay);
    copies.set(cache, copy);
    return copy;
  });
  return { ...scene, caches };
}

/** Tables after `change` was done to each cache of {@linkcode LAYER} whose sequence has a row and is not done. */
function changed(
  scene: Scene,
  before: Tables,
  change: (cache: HeadCache, row: number, sequence: number, head: number) => void,
): Tables {
  const { kvHeads, sequences, heads } = scene.setup;
  const caches = scene.caches.slice();
  rowsOf(scene).forEach(({ sequence }, r) => {
    if (sequences[sequence].done) return;
    const first = (LAYER * sequences.length + sequence) * kvHeads;
    for (let head = 0; head < kvHeads; head++) {
      if (heads === "mean" && head > 0) {
        caches[first + head] = caches[first];
        continue;
      }
      caches[first + head] = copyOf(scene.caches[first + head]);
      change(caches[first + head], r, sequence, head);
    }
  });
  return encodeCaches(caches, scene.turns, kvHeads, before);
}

/** Bindings that all kernels of a layer share, and the tables they come from. */
function dataOf(scene: Scene, keepsOf?: KeepsOf) {
  const tables = encodeCaches(scene.caches, scene.turns, scene.setup.kvHeads);
  return {
    tables,
    data: () => ({
      ...bindingsOf(tables),
      ...encodeTurns(scene, keepsOf),
      rowTable: encodeRows(rowsOf(scene)),
      states: encodeStates(scene.setup.sequences.map(({ done = false }) => done)),
    }),
  };
}

function parametersOf(scene: Scene): Record<string, number> {
  const { kvHeads, sequences } = scene.setup;
  return { rows: rowsOf(scene).length, kvHeads, layer: LAYER, layers: 1, sequences: sequences.length };
}

function nameOf({ setup }: Scene): string {
  const { kvHeads, heads, sequences } = setup;
  return `${kvHeads} heads ${heads}, lengths ${sequences.slice(0, 8).map(({ length }) => length)}`;
}

const WAITING: readonly SequenceSetup[] = [
  { capacity: 40, length: 12, freed: 5 },
  { capacity: 23, length: 23, freed: 3 },
  { capacity: 17, length: 17 },
  { capacity: 30, length: 11, freed: 4, done: true },
  { capacity: 30, length: 7, freed: 4, idle: true },
  { capacity: 19, length: 0 },
  { capacity: 9, length: 9, freed: 9 },
  // Freed slots that are not to be touched yet, and those that may be from this row on.
  { capacity: 30, length: 20, freed: 7, frozen: 61 },
  { capacity: 30, length: 20, freed: 7, frozen: 64 },
  { capacity: 30, length: 20, freed: 7, frozen: 900 },
];

function appendCase(
  setup: SceneSetup,
  { delay, firstLayer = 0 }: { delay: number; firstLayer?: number },
): KernelCase {
  const scene = makeScene(setup);
  const { kvHeads, sequences } = setup;
  const { data, tables } = dataOf(scene);
  const rows = rowsOf(scene);
  const spans = new Uint32Array(2 * sequences.length);
  rows.forEach(({ sequence }, r) => spans.set([r, 1], 2 * sequence));
  return {
    family: "cacheAppend",
    name: `reuse after ${delay}, from layer ${firstLayer} on, ${nameOf(scene)}`,
    kernel: cacheAppend({ sharedPositions: false, reuse: true }),
    parameters: { layers: LAYERS - firstLayer, sequences: sequences.length, kvHeads, firstLayer, delay },
    data: () => ({ ...data(), spans }),
    expected: () => {
      const from = firstLayer * sequences.length * kvHeads;
      const after = appended({ ...scene, caches: scene.caches.slice(from) }, delay).caches;
      const { extents, slotPositions } = encodeCaches(
        [...scene.caches.slice(0, from), ...after],
        scene.turns,
        kvHeads,
        tables,
      );
      return { extents, slotPositions };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 64 * scene.caches.length },
  };
}

const SCORED: readonly SequenceSetup[] = [
  // Tokens of several blocks, some older than the turn; the row's block is the last.
  { capacity: 130, length: 100, freed: 9, turn: { origin: 60, block: 16 } },
  { capacity: 600, length: 531, turn: { origin: 900, block: 7 } },
  { capacity: 23, length: 23, turn: { origin: 20, block: 4 } },
  { capacity: 40, length: 12, freed: 3, done: true },
  { capacity: 9, length: 0, turn: { origin: 15, block: 4 } },
  { capacity: 300, length: 257, freed: 1, turn: { origin: 530, block: 16 } },
];

function scoresCase(spec: SlotScoresSpec, setup: SceneSetup): KernelCase {
  const { mode, groupSize } = spec;
  const scene = appended(makeScene(setup), 0);
  const { kvHeads, sequences, seed } = setup;
  const { data, tables } = dataOf(scene);
  const rows = rowsOf(scene);
  const heads = kvHeads * groupSize;
  const slots = Math.max(...scene.caches.map(({ positions }) => positions.length));
  const logitStride = slots + 5;
  const cacheOf = (row: number, head: number): HeadCache =>
    scene.caches[(LAYER * sequences.length + rows[row].sequence) * kvHeads + Math.floor(head / groupSize)];
  const logits = () => {
    const out = randomArray(rows.length * heads * logitStride, seed, 3);
    out.forEach((_, i) => {
      const slot = i % logitStride;
      const head = Math.floor(i / logitStride);
      const { positions } = cacheOf(Math.floor(head / heads), head % heads);
      if (slot >= positions.length) out[i] = NaN;
      else if (positions[slot] === undefined) out[i] = -3.4e38;
    });
    return out;
  };
  return {
    family: "slotScores",
    name: nameOf(scene),
    kernel: slotScores(spec),
    parameters: { ...parametersOf(scene), heads, logitStride, slots },
    data: () => ({
      ...data(),
      logits: logits(),
      logSumExps: randomArray(rows.length * heads, seed + 1).map((value) => value + 3),
    }),
    expected: ({ logits, logSumExps }): Record<string, Float64Array | Uint32Array> => {
      const after = changed(scene, tables, (cache, r, sequence, head) => {
        const count = setup.heads === "mean" ? heads : groupSize;
        const first = r * heads + head * groupSize;
        const of = Array.from(
          { length: count },
          (_, i) =>
            (logits as Float32Array).subarray((first + i) * logitStride, (first + i + 1) * logitStride),
        );
        const sums = Array.from((logSumExps as Float32Array).subarray(first, first + count));
        observe(cache, mode, scene.positions[sequence], (slot) => meanWeight(of, sums, slot));
      });
      if (mode !== "block") return { slotScores: after.slotScores };
      // Scores are set or left, which is exact; beside the largest of them any other would pass.
      const scores = Float32Array.from(after.slotScores);
      return { slotSums: after.slotSums, slotScores: new Uint32Array(scores.buffer) };
    },
    // Sums are small beside those that have a factor.
    tolerance: 1e-6,
    work: { flops: rows.length * heads * slots * 4, bytes: 4 * rows.length * heads * slots },
  };
}

/** A sequence of `length` tokens before the row of number `number`, whose newest `window` tokens are protected. */
function compressing(
  s: number,
  { number, block, ...rest }: SequenceSetup & { number: number; block: number },
): SequenceSetup {
  return { step: 1, compress: true, turn: { origin: rest.length + 3 * s - number, block }, ...rest };
}

const COMPRESSED: readonly SequenceSetup[] = [
  compressing(0, { number: 47, block: 16, window: 16, capacity: 90, length: 68, freed: 21 }),
  compressing(1, { number: 47, block: 16, window: 16, capacity: 90, length: 68, compress: false }),
  compressing(2, { number: 47, block: 16, window: 16, capacity: 90, length: 68, done: true }),
  // One protected token; the block begins with the last token of the prompt.
  compressing(3, { number: 16, block: 16, window: 1, capacity: 31, length: 29 }),
  compressing(4, { number: 355, block: 256, window: 100, capacity: 700, length: 601, freed: 40 }),
  compressing(5, { number: 23, block: 5, window: 4, capacity: 29, length: 29, freed: 2 }),
];

function compressCase(setup: SceneSetup, keep: number, distanceWeight: number): KernelCase {
  const made = makeScene(setup);
  const random = integers(setup.seed + 50);
  for (const [i, cache] of made.caches.entries()) {
    const s = Math.floor(i / setup.kvHeads) % setup.sequences.length;
    const { origin, block } = made.turns[s];
    const end = made.positions[s] + 1 - (setup.sequences[s].window ?? 1);
    cache.positions.forEach((position, slot) => {
      // What others were seen with must not matter.
      if (position === undefined || position < end - block || position >= end) return;
      const later = (Math.floor((position - origin) / block) + 1) * block + origin;
      const rows = Array.from({ length: Math.max(0, made.positions[s] + 1 - later) }, (_, k) => later + k);
      // Some tokens of a block were seen alike.
      const kind = random(5);
      const p = randomArray(rows.length, kind < 4 ? kind : 100 + slot);
      cache.seen[slot] = rows.map((row, k) => ({ row, p: Math.abs(p[k]) }));
    });
  }
  const scene = appended(made, 0);
  // Every second sequence keeps one more; what the other layers keep is something else.
  const keepsOf = (s: number) =>
    Array.from({ length: LAYERS }, (_, l) => l === LAYER ? keep + s % 2 : 2 + 3 * l);
  const { data, tables } = dataOf(scene, keepsOf);
  return {
    family: "compressBlock",
    name: `keep ${keep}, distance weight ${distanceWeight}, ${nameOf(scene)}`,
    kernel: compressBlock({ heads: setup.heads }),
    parameters: { ...parametersOf(scene), distanceWeight },
    data,
    expected: () => {
      const { slotSums: _, ...after } = changed(scene, tables, (cache, _, s) => {
        const { window = 1, compress: due } = setup.sequences[s];
        const row = scene.positions[s];
        if (due) compress(cache, { ...scene.turns[s], row, window, keep: keepsOf(s)[LAYER], distanceWeight });
      });
      return after;
    },
    tolerance: 1e-5,
    work: { flops: 0, bytes: 4 * scene.caches.reduce((sum, { positions }) => sum + positions.length, 0) },
  };
}

const FULL: readonly SequenceSetup[] = [
  { capacity: 60, length: 60 },
  // Room behind the length; few and many free slots; room and free slots together.
  { capacity: 61, length: 50, freed: 2 },
  { capacity: 60, length: 60, freed: 3 },
  { capacity: 60, length: 60, freed: 8 },
  { capacity: 62, length: 60, freed: 2 },
  { capacity: 601, length: 600, window: 40, compress: true, frozen: 500 },
  { capacity: 60, length: 60, done: true },
  // A window over everything.
  { capacity: 12, length: 12, window: 1000 },
  { capacity: 12, length: 12, frozen: 0 },
];

function evictCase(
  spec: EvictSlotSpec,
  setup: SceneSetup,
  settings: Record<"sinks" | "window" | "delay", number>,
) {
  const made = makeScene(setup);
  // Numbers that are hard to order.
  for (const { scores, capacity } of made.caches) {
    if (setup.ties && capacity === 60) {
      scores[capacity % 7] = -0, scores[11] = Infinity, scores[12] = -Infinity;
    }
    if (setup.ties && capacity === 62) scores.forEach((_, slot) => scores[slot] = slot % 2 ? -0 : 0);
    if (setup.ties && capacity > 600) scores[capacity % 7] = NaN, scores[capacity % 5] = NaN, scores[50] = -9;
  }
  const scene = appended(made, settings.delay);
  const { data, tables } = dataOf(scene);
  const { sinks, window, delay } = settings;
  return {
    family: "evictSlot",
    name: `sinks ${sinks}, window ${window}, delay ${delay}${setup.ties ? ", ties" : ""}, ${nameOf(scene)}`,
    kernel: evictSlot(spec),
    parameters: { ...parametersOf(scene), ...settings },
    data,
    expected: () => {
      const { extents, slotPositions, freed } = changed(scene, tables, (cache, _, s) => {
        const recent = spec.limit === "window" ? window : setup.sequences[s].window ?? 1;
        const before = Math.max(0, scene.positions[s] + 1 - recent);
        const limit = spec.limit === "window" ? before : Math.min(before, cache.frozen);
        evict(cache, { sinks, limit, delay, byPosition: spec.score === "position" });
      });
      return { extents, slotPositions, freed };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 8 * scene.caches.reduce((sum, { positions }) => sum + positions.length, 0) },
  } satisfies KernelCase;
}

/** Cases of all four. They use neither subgroups nor the storage type of the cache, and are the same in all variants. */
export function cases(_variant: Variant): KernelCase[] {
  const both = ["each", "mean"] as const;
  return both.flatMap((heads, h) => {
    const scene = (kvHeads: number, sequences: readonly SequenceSetup[], seed: number, ties = false) => ({
      kvHeads,
      heads,
      sequences,
      seed: 10 * seed + h,
      ties,
    });
    return [
      appendCase(scene(3, WAITING, 1), { delay: 0 }),
      appendCase(scene(2, WAITING, 2), { delay: 3 }),
      appendCase(scene(1, WAITING, 3), { delay: 4, firstLayer: 1 }),
      ...(["sum", "last", "block"] as const).flatMap((mode, m) => [
        scoresCase({ mode, heads, groupSize: 1 }, scene(3, SCORED, 10 + m)),
        scoresCase({ mode, heads, groupSize: 4 }, scene(2, SCORED, 20 + m)),
      ]),
      compressCase(scene(2, COMPRESSED, 30), 7, 1.5),
      compressCase(scene(1, COMPRESSED, 31), 1, 1),
      compressCase(scene(3, COMPRESSED, 32), 0, 3),
      compressCase(scene(2, COMPRESSED, 33), 300, 2),
      ...(["window", "frozen"] as const).flatMap((limit, l) => [
        evictCase({ heads, limit, score: "stored" }, scene(3, FULL, 40 + l), {
          sinks: 4,
          window: 10,
          delay: 0,
        }),
        evictCase({ heads, limit, score: "stored" }, scene(2, FULL, 50 + l, true), {
          sinks: 0,
          window: 3,
          delay: 3,
        }),
        evictCase({ heads, limit, score: "position" }, scene(1, FULL, 60 + l), {
          sinks: 9,
          window: 0,
          delay: 3,
        }),
      ]),
    ];
  });
}

/** A decode step of Llama-3.2-1B, 8 sequences with caches of 2048 slots. */
export function bench(_variant: Variant): KernelCase[] {
  const sequences = (setup: SequenceSetup) => Array.from({ length: 8 }, () => setup);
  const full = sequences({ capacity: 2048, length: 2048 });
  const compressed = Array.from(
    { length: 8 },
    (_, s) => compressing(s, { number: 255, block: 16, window: 64, capacity: 2049, length: 2048 }),
  );
  return (["each", "mean"] as const).flatMap((heads) => {
    const scene = (sequences: readonly SequenceSetup[]) => ({ kvHeads: 8, heads, sequences, seed: 1 });
    return [
      appendCase(scene(full), { delay: 0 }),
      scoresCase({ mode: "sum", heads, groupSize: 4 }, scene(full)),
      compressCase(scene(compressed), 7, 1.5),
      evictCase({ heads, limit: "window", score: "stored" }, scene(full), { sinks: 4, window: 64, delay: 0 }),
    ];
  });
}
