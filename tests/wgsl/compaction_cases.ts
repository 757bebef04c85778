// Cases of appendSelected, compactSlots, compactTables, stageSlots and stagePositions.

import { appendSelected, type AppendSelectedSpec } from "../../wgsl/append_selected.ts";
import { compactSlots } from "../../wgsl/compact_slots.ts";
import { compactTables } from "../../wgsl/compact_tables.ts";
import { stagePositions } from "../../wgsl/stage_positions.ts";
import { stageSlots } from "../../wgsl/stage_slots.ts";
import { EXTENT_WORDS, NONE, SELECTION_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, randomArray, store, type Variant } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import {
  oracleAppend,
  oracleDealOut,
  type OracleExtent,
  type OracleKept,
  oracleKeptRows,
  oracleMoves,
} from "../oracles/compaction.ts";
import { encodeExtents as encodePlaces, encodeStates, integers, LAYER, LAYERS } from "./attention_scene.ts";

const POISON = 0xdeadbeef;

/** Packs extents; nothing here may touch what they know of freed slots. */
export function encodeExtents(extents: readonly OracleExtent[]): Uint32Array {
  const table = encodePlaces(extents);
  extents.forEach((_, i) => table.set([7 + i, 11 * i, 13 * i + 1], i * EXTENT_WORDS + 5));
  return table;
}

/** Packs selections. */
export function encodeSelections(
  selections: readonly (OracleKept & { readonly first: number })[],
): Uint32Array {
  const table = new Uint32Array(selections.length * SELECTION_WORDS);
  selections.forEach(({ first, count, window, keep }, i) =>
    table.set([first, count, window, POISON, POISON, keep, POISON, POISON], i * SELECTION_WORDS)
  );
  return table;
}

/** Bits of an array, which are compared exactly. */
function bits(array: HostArray): Uint32Array {
  return new Uint32Array(array.buffer, array.byteOffset, array.byteLength / 4);
}

/** A sequence before the selected rows are in the cache. */
interface Appending extends OracleKept {
  /** Slots of each head; the last number stands for all further heads. */
  readonly lengths: readonly number[];
  readonly capacity: number;
  readonly done?: boolean;
  /** What each head keeps, when they are counted. Default: numbers about `keep`, which is their average. */
  readonly keeps?: readonly number[];
}

interface AppendShape {
  readonly kvHeads: number;
  readonly sequences: readonly Appending[];
}

const APPENDS: readonly AppendShape[] = [
  { kvHeads: 1, sequences: [{ count: 1, window: 1, keep: 0, lengths: [0], capacity: 1 }] },
  {
    kvHeads: 3,
    sequences: [
      { count: 70, window: 8, keep: 20, lengths: [0], capacity: 40 },
      { count: 9, window: 8, keep: 20, lengths: [0], capacity: 40 },
      { count: 5, window: 8, keep: 20, lengths: [0], capacity: 40 },
      { count: 0, window: 8, keep: 20, lengths: [0], capacity: 40 },
      { count: 70, window: 8, keep: 20, lengths: [0], capacity: 40, done: true },
    ],
  },
  // Slots from an earlier turn, in some heads or all; no room for what is kept; more than the average.
  {
    kvHeads: 4,
    sequences: [
      { count: 50, window: 4, keep: 10, lengths: [17, 3, 0], capacity: 40 },
      { count: 50, window: 4, keep: 10, lengths: [0, 0, 0, 1], capacity: 20 },
      { count: 50, window: 4, keep: 10, lengths: [0], capacity: 9 },
      { count: 50, window: 4, keep: 10, lengths: [9], capacity: 9 },
      { count: 50, window: 4, keep: 10, lengths: [0], capacity: 14, keeps: [30, 20, 10, 0] },
      { count: 50, window: 4, keep: 10, lengths: [0], capacity: 17, keeps: [0, 0, 40, 0] },
    ],
  },
  // More heads, and more sequences, than invocations.
  { kvHeads: 71, sequences: [{ count: 40, window: 4, keep: 10, lengths: [0, 2, 5], capacity: 20 }] },
  {
    kvHeads: 2,
    sequences: Array.from({ length: 67 }, (_, s) => ({
      count: 20 + s,
      window: 4,
      keep: 10 + s % 7,
      lengths: [s % 3 === 0 ? 0 : s % 5],
      capacity: 30,
    })),
  },
];

/** Numbers of the same average that differ from head to head. */
function spread(keep: number, heads: number): number[] {
  return Array.from({ length: heads }, (_, head) => {
    if (head === heads - 1 && heads % 2) return keep;
    const more = (head >> 1) % (keep + 1);
    return head % 2 ? keep - more : keep + more;
  });
}

function appendCase(
  { kvHeads, sequences }: AppendShape,
  spec: AppendSelectedSpec,
  seed: number,
  keepHeads = kvHeads,
): KernelCase {
  const { counted, ragged } = spec;
  const random = integers(seed);
  const before: OracleExtent[] = [];
  let slot = 3;
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const { lengths, capacity } of sequences) {
      for (let head = 0; head < kvHeads; head++) {
        const length = lengths[Math.min(head, lengths.length - 1)];
        before.push({ base: slot, capacity, start: 99, length, positions: slot + 1000 });
        slot += capacity;
      }
      slot += random(5);
    }
  }
  const keeps = sequences.flatMap(({ keep, keeps }) => keeps?.slice(0, keepHeads) ?? spread(keep, keepHeads));
  const after = before.slice();
  sequences.forEach(({ count, window, keep, done }, s) => {
    const first = (LAYER * sequences.length + s) * kvHeads;
    const rows = Array.from(
      { length: kvHeads },
      (_, head) =>
        oracleKeptRows({
          count,
          window,
          keep: counted ? keeps[s * keepHeads + Math.min(head, keepHeads - 1)] : keep,
        }),
    );
    let own = before.slice(first, first + kvHeads);
    if (ragged && !done) own = oracleDealOut(own, rows, oracleKeptRows({ count, window, keep }));
    after.splice(first, kvHeads, ...oracleAppend(own, done ? rows.map(() => 0) : rows));
  });
  return {
    family: "appendSelected",
    name: `${kvHeads} heads, rows ${sequences.map(({ count }) => count)}`,
    kernel: appendSelected(spec),
    parameters: { layer: LAYER, sequences: sequences.length, kvHeads, ...(counted ? { keepHeads } : {}) },
    data: () => ({
      extents: encodeExtents(before),
      selections: encodeSelections(sequences.map((sequence, s) => ({ ...sequence, first: 100 * s }))),
      states: encodeStates(sequences.map(({ done = false }) => done)),
      keeps: Uint32Array.from(keeps),
    }),
    expected: () => ({ extents: encodeExtents(after) }),
    tolerance: 0,
    work: { flops: 0, bytes: sequences.length * kvHeads * EXTENT_WORDS * 8 },
  };
}

/** A sequence whose rows are staged and have their slots. */
interface Compacting {
  /** Slots before this step. */
  readonly start: number;
  /** Staged rows of this step. */
  readonly count: number;
  /** How many are kept; every second head keeps one fewer, unless positions are shared. */
  readonly kept: number;
}

interface CompactShape {
  readonly headSize: number;
  readonly kvHeads: number;
  readonly sequences: readonly Compacting[];
  readonly firstHead?: number;
  readonly arenaHeads?: number;
  /** More than the most rows that are kept. */
  readonly spareColumns?: number;
  /** Whether all heads share their positions, one map and one row of scores. */
  readonly shared?: boolean;
}

const MIXED: readonly Compacting[] = [
  { start: 0, count: 40, kept: 13 },
  { start: 9, count: 30, kept: 30 },
  // Done, or without room.
  { start: 5, count: 12, kept: 0 },
  { start: 31, count: 67, kept: 1 },
];
const ONE: readonly Compacting[] = [{ start: 0, count: 1, kept: 1 }];

const COMPACTS: readonly CompactShape[] = [
  { headSize: 4, kvHeads: 1, sequences: ONE },
  { headSize: 8, kvHeads: 2, sequences: MIXED, spareColumns: 3 },
  { headSize: 12, kvHeads: 3, sequences: MIXED, shared: true },
  { headSize: 64, kvHeads: 4, sequences: MIXED, firstHead: 1, arenaHeads: 2 },
  { headSize: 128, kvHeads: 3, sequences: MIXED, firstHead: 2, spareColumns: 1 },
];
/** Over 65,535 workgroups. */
const FOLDED: CompactShape = {
  headSize: 64,
  kvHeads: 3,
  sequences: [{ start: 2, count: 7, kept: 3 }],
  spareColumns: 1_500_000,
};

/** Where staged rows and the cache's slots stand, and which rows are kept. */
interface CompactScene {
  /** Of all layers, and of what is staged. */
  readonly extents: readonly OracleExtent[];
  readonly staged: readonly OracleExtent[];
  /** Slots of the layer's arena, of the staging arena, and entries of the tables. */
  readonly slots: number;
  readonly stagedSlots: number;
  readonly entries: number;
  readonly stagedEntries: number;
  readonly firsts: readonly number[];
  readonly stride: number;
  /** Rows of each sequence and head, by sequence * kvHeads + head. */
  readonly maps: readonly (readonly number[])[];
  /** `maps` as the kernels read them. */
  readonly map: Uint32Array;
}

function compactScene(shape: CompactShape, seed: number): CompactScene {
  const { kvHeads, sequences, shared = false } = shape;
  const firstHead = shape.firstHead ?? 0;
  const arenaHeads = shape.arenaHeads ?? kvHeads - firstHead;
  const random = integers(seed);
  const extents: OracleExtent[] = [];
  const staged: OracleExtent[] = [];
  const maps: number[][] = [];
  const firsts: number[] = [];
  let [slots, stagedSlots, entries, stagedEntries, rows] = [2, 3, 4, 5, 1];
  for (let layer = 0; layer < LAYERS; layer++) {
    sequences.forEach(({ start: earlier, count, kept: most }, s) => {
      if (layer === LAYER) {
        firsts[s] = rows;
        rows += count + 2;
      }
      for (let head = 0; head < kvHeads; head++) {
        const kept = shared ? most : Math.max(0, most - head % 2);
        const start = shared ? earlier : Math.max(0, earlier - random(4));
        const capacity = start + kept + random(4);
        const here = layer === LAYER && head >= firstHead && head < firstHead + arenaHeads;
        const positions = shared && head > 0 ? extents.at(-1)!.positions : entries;
        extents.push({ base: here ? slots : random(50), capacity, start, length: start + kept, positions });
        if (here) slots += capacity + random(3);
        if (positions === entries) entries += start + kept + random(4) + 4;
        if (layer !== LAYER) continue;
        const index = s * kvHeads + head;
        const length = start + count;
        staged[index] = {
          base: here ? stagedSlots : random(50),
          capacity: length + 1,
          start,
          length,
          positions: shared && head > 0 ? staged[index - 1].positions : stagedEntries,
        };
        if (here) stagedSlots += length + 1;
        if (staged[index].positions === stagedEntries) stagedEntries += length + 1;
        maps[index] = shared && head > 0 ? maps[index - 1] : pick(count, kept, random);
      }
    });
  }
  const stride = shared ? 0 : rows + 3;
  const map = new Uint32Array(Math.max(rows, kvHeads * stride)).fill(POISON);
  maps.forEach((own, i) => map.set(own, i % kvHeads * stride + firsts[Math.floor(i / kvHeads)]));
  return { extents, staged, slots, stagedSlots, entries, stagedEntries, firsts, stride, maps, map };
}

/** Some of the numbers below `count`, ascending. */
function pick(count: number, kept: number, random: (below: number) => number): number[] {
  const left = Array.from({ length: count }, (_, i) => i);
  while (left.length > kept) left.splice(random(left.length), 1);
  return left;
}

/** What both kernels read. */
function compactTablesOf({ sequences }: CompactShape, scene: CompactScene): Record<string, HostArray> {
  const selections = sequences.map(({ count }, s) => ({
    first: scene.firsts[s],
    count,
    window: POISON,
    keep: POISON,
  }));
  return {
    map: scene.map,
    selections: encodeSelections(selections),
    stagingExtents: encodeExtents(scene.staged),
    extents: encodeExtents(scene.extents),
  };
}

function nameOf({ headSize, kvHeads, sequences, firstHead = 0, arenaHeads, shared }: CompactShape): string {
  const kept = sequences.map(({ kept, count, start }) => `${kept} of ${count} after ${start}`).join(", ");
  const heads = `[${firstHead}, +${arenaHeads ?? kvHeads - firstHead}) of ${kvHeads} heads`;
  return `${kept}, head ${headSize}, ${heads}${shared ? ", shared" : ""}`;
}

function columnsOf({ sequences, spareColumns = 0 }: CompactShape): number {
  return Math.max(...sequences.map(({ kept }) => kept)) + spareColumns;
}

function compactSlotsCase(shape: CompactShape, dtype: "f16" | "f32", seed: number): KernelCase {
  const scene = compactScene(shape, seed);
  const { headSize, kvHeads, sequences, firstHead = 0, arenaHeads = kvHeads - firstHead } = shape;
  const arena = (slots: number) => store(new Float32Array(slots * headSize).fill(Infinity), dtype);
  const random = (salt: number) => store(randomArray(scene.stagedSlots * headSize, seed + salt), dtype);
  return {
    family: "compactSlots",
    name: nameOf(shape),
    kernel: compactSlots({ dtype, headSize }),
    parameters: {
      columns: columnsOf(shape),
      layer: LAYER,
      sequences: sequences.length,
      kvHeads,
      firstHead,
      arenaHeads,
      stride: scene.stride,
    },
    data: () => ({
      ...compactTablesOf(shape, scene),
      stagingKeys: random(1),
      stagingValues: random(2),
      keys: arena(scene.slots),
      values: arena(scene.slots),
    }),
    expected: ({ stagingKeys, stagingValues }) => {
      const keys = arena(scene.slots);
      const values = arena(scene.slots);
      scene.maps.forEach((map, i) => {
        const head = i % kvHeads;
        if (head < firstHead || head >= firstHead + arenaHeads) return;
        const extent = scene.extents[LAYER * sequences.length * kvHeads + i];
        for (const { to, origin } of oracleMoves(extent, scene.staged[i], map)) {
          const at = (scene.staged[i].base + origin) * headSize;
          keys.set(stagingKeys.subarray(at, at + headSize), (extent.base + to) * headSize);
          values.set(stagingValues.subarray(at, at + headSize), (extent.base + to) * headSize);
        }
      });
      return { keys: bits(keys), values: bits(values) };
    },
    tolerance: 0,
    work: { flops: 0, bytes: copiedBytes(scene.maps.flat().length / kvHeads * arenaHeads, headSize, dtype) },
  };
}

/** Bytes of so many keys and values, read and written. */
function copiedBytes(slots: number, headSize: number, dtype: "f16" | "f32"): number {
  return slots * headSize * 4 * (dtype === "f16" ? 2 : 4);
}

function compactTablesCase(shape: CompactShape, scores: boolean, seed: number): KernelCase {
  const scene = compactScene(shape, seed);
  const { kvHeads, sequences } = shape;
  return {
    family: "compactTables",
    name: `${nameOf(shape)}${scores ? ", scores" : ""}`,
    kernel: compactTables({ scores }),
    parameters: {
      columns: columnsOf(shape),
      layer: LAYER,
      sequences: sequences.length,
      kvHeads,
      stride: scene.stride,
    },
    data: () => ({
      ...compactTablesOf(shape, scene),
      stagingPositions: Uint32Array.from({ length: scene.stagedEntries }, (_, i) => 3 * i + 1),
      slotPositions: new Uint32Array(scene.entries).fill(POISON),
      scores: randomArray(scene.map.length, seed + 3),
      slotScores: new Float32Array(scene.entries).fill(Infinity),
    }),
    expected: (data) => {
      const slotPositions = new Uint32Array(scene.entries).fill(POISON);
      const slotScores = new Float32Array(scene.entries).fill(Infinity);
      scene.maps.forEach((map, i) => {
        const extent = scene.extents[LAYER * sequences.length * kvHeads + i];
        const first = i % kvHeads * scene.stride + scene.firsts[Math.floor(i / kvHeads)];
        for (const { to, origin, row } of oracleMoves(extent, scene.staged[i], map)) {
          slotPositions[extent.positions + to] = data.stagingPositions[scene.staged[i].positions + origin];
          slotScores[extent.positions + to] = data.scores[first + row];
        }
      });
      return { slotPositions, ...(scores ? { slotScores: bits(slotScores) } : {}) };
    },
    tolerance: 0,
    work: { flops: 0, bytes: scene.maps.flat().length * (scores ? 20 : 12) },
  };
}

interface StageShape {
  readonly headSize: number;
  readonly kvHeads: number;
  /** Longest extent of each sequence; others have up to three slots fewer. */
  readonly lengths: readonly number[];
  /** Slots that are staged at the most. Default: more than enough. */
  readonly capacity?: number;
  readonly firstHead?: number;
  readonly arenaHeads?: number;
  readonly columns?: number;
}

const STAGES: readonly StageShape[] = [
  { headSize: 4, kvHeads: 1, lengths: [1] },
  { headSize: 8, kvHeads: 2, lengths: [37, 0, 5] },
  { headSize: 12, kvHeads: 3, lengths: [37, 0, 70], capacity: 35 },
  { headSize: 64, kvHeads: 4, lengths: [9, 67], firstHead: 1, arenaHeads: 2 },
  { headSize: 128, kvHeads: 3, lengths: [9, 67], firstHead: 2, columns: 69 },
  // Nothing was there before: this step's first layer may have left staging extents as they were.
  { headSize: 8, kvHeads: 2, lengths: [0, 0], columns: 0 },
  // Over 65,535 workgroups.
  { headSize: 64, kvHeads: 3, lengths: [5], columns: 1_500_000 },
];

function stageCases(shape: StageShape, dtype: "f16" | "f32", seed: number): KernelCase[] {
  const { headSize, kvHeads, lengths, columns = Math.max(...lengths) } = shape;
  const firstHead = shape.firstHead ?? 0;
  const arenaHeads = shape.arenaHeads ?? kvHeads - firstHead;
  const random = integers(seed);
  const extents: OracleExtent[] = [];
  const staged: OracleExtent[] = [];
  let [slots, stagedSlots, entries, stagedEntries] = [2, 3, 4, 5];
  for (let layer = 0; layer < LAYERS; layer++) {
    lengths.forEach((most, s) => {
      for (let head = 0; head < kvHeads; head++) {
        const length = Math.max(0, most - (head === 0 ? 0 : random(4)));
        const capacity = length + random(4);
        const here = layer === LAYER && head >= firstHead && head < firstHead + arenaHeads;
        extents.push({ base: here ? slots : random(50), capacity, start: 77, length, positions: entries });
        if (here) slots += capacity;
        entries += capacity;
        if (layer !== LAYER) continue;
        const room = shape.capacity ?? length + 5;
        staged[s * kvHeads + head] = {
          base: here ? stagedSlots : random(50),
          capacity: room,
          start: 88,
          length: 99,
          positions: stagedEntries,
        };
        if (here) stagedSlots += room;
        stagedEntries += room;
      }
    });
  }
  const own = extents.slice(LAYER * lengths.length * kvHeads, (LAYER + 1) * lengths.length * kvHeads);
  const after = staged.map((place, i) => {
    const length = Math.min(own[i].length, place.capacity);
    return { ...place, start: length, length };
  });
  const arena = () => store(new Float32Array(stagedSlots * headSize).fill(Infinity), dtype);
  const content = (salt: number) => store(randomArray(slots * headSize, seed + salt), dtype);
  const positions = integers(seed + 9);
  const slotPositions = Uint32Array.from(
    { length: entries },
    (_, i) => positions(4) === 0 ? NONE : 1000 + 2 * i,
  );
  const name = `lengths ${lengths}, head ${headSize}, [${firstHead}, +${arenaHeads}) of ${kvHeads} heads` +
    `${shape.capacity ? `, room for ${shape.capacity}` : ""}`;
  const all = { columns, layer: LAYER, sequences: lengths.length, kvHeads };
  const slotCase: KernelCase = {
    family: "stageSlots",
    name,
    kernel: stageSlots({ dtype, headSize }),
    parameters: { ...all, firstHead, arenaHeads },
    data: () => ({
      keys: content(1),
      values: content(2),
      stagingKeys: arena(),
      stagingValues: arena(),
      extents: encodeExtents(extents),
      stagingExtents: encodeExtents(staged),
    }),
    expected: ({ keys, values }) => {
      const stagingKeys = arena();
      const stagingValues = arena();
      after.forEach(({ base, length }, i) => {
        const head = i % kvHeads;
        if (head < firstHead || head >= firstHead + arenaHeads) return;
        const from = own[i].base * headSize;
        stagingKeys.set(keys.subarray(from, from + length * headSize), base * headSize);
        stagingValues.set(values.subarray(from, from + length * headSize), base * headSize);
      });
      return { stagingKeys: bits(stagingKeys), stagingValues: bits(stagingValues) };
    },
    tolerance: 0,
    work: {
      flops: 0,
      bytes: copiedBytes(own.reduce((sum, { length }) => sum + length, 0), headSize, dtype),
    },
  };
  const positionCase: KernelCase = {
    family: "stagePositions",
    name,
    kernel: stagePositions(),
    parameters: all,
    data: () => ({
      slotPositions,
      stagingPositions: new Uint32Array(stagedEntries).fill(POISON),
      extents: encodeExtents(extents),
      stagingExtents: encodeExtents(staged),
    }),
    expected: () => {
      const stagingPositions = new Uint32Array(stagedEntries).fill(POISON);
      after.forEach(({ positions, length }, i) =>
        stagingPositions.set(
          slotPositions.subarray(own[i].positions, own[i].positions + length),
          positions,
        )
      );
      return { stagingPositions, stagingExtents: encodeExtents(after) };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 8 * own.reduce((sum, { length }) => sum + length, 0) },
  };
  return dtype === "f32" ? [slotCase, positionCase] : [slotCase];
}

const SPECS: readonly AppendSelectedSpec[] = [
  { counted: false, ragged: false },
  { counted: true, ragged: false },
  { counted: false, ragged: true },
  { counted: true, ragged: true },
];

/** Cases of all five kernels. Those that know no storage type come with f32 alone. */
export function cases({ dtype }: Variant): KernelCase[] {
  return [
    ...[...COMPACTS, FOLDED].map((shape, i) => compactSlotsCase(shape, dtype, i + 1)),
    ...STAGES.flatMap((shape, i) => stageCases(shape, dtype, i + 20)),
    ...(dtype === "f16" ? [] : [
      ...APPENDS.flatMap((shape, i) => SPECS.map((spec) => appendCase(shape, spec, i + 40))),
      ...APPENDS.map((shape, i) => appendCase(shape, { counted: true, ragged: false }, i + 50, 1)),
      ...[...COMPACTS, FOLDED].flatMap((shape, i) =>
        [false, true].map((scores) => compactTablesCase(shape, scores, i + 60))
      ),
    ]),
  ];
}

/** A fifth of a long prompt is kept, by Llama-3.2-1B and Llama-3-8B; as much is staged again. */
export function bench({ dtype }: Variant): KernelCase[] {
  return [64, 128].flatMap((headSize) => {
    const model = { headSize, kvHeads: 8 };
    const sequences = [{ start: 0, count: 8192, kept: 1638 }];
    const [staged] = stageCases({ ...model, lengths: [8192] }, dtype, 2);
    return [compactSlotsCase({ ...model, sequences }, dtype, 1), staged];
  });
}
