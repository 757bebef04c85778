// Cases of cacheAppend and ropeStore.

import { cacheAppend } from "../../wgsl/cache_append.ts";
import { ropeStore, type RopeStoreSpec } from "../../wgsl/rope_store.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, randomArray, store, type Variant } from "../harness/kernel_case.ts";
import { ropeTable, rotaryFrequencies, rotate } from "../oracles/attention.ts";
import {
  encodeExtents,
  encodeRows,
  encodeStates,
  type Extent,
  integers,
  LAYER,
  LAYERS,
  poisoned,
  type Row,
} from "./attention_scene.ts";

/** A sequence before the step's rows are in the cache. */
interface Waiting {
  readonly rows: number;
  readonly length: number;
  readonly done?: boolean;
  /** Free slots behind the length. Default: enough. */
  readonly room?: number;
}

const POSITION_POISON = 0xdeadbeef;

/** What has a range of slot positions: a sequence, a layer of it, or every head (but the second, which has the first's). */
type Positions = "shared" | "layer" | "own";

interface AppendShape {
  readonly kvHeads: number;
  /** First layer that is moved on. Default: 0. */
  readonly firstLayer?: number;
  readonly sequences: readonly Waiting[];
}

const APPENDS: readonly AppendShape[] = [
  { kvHeads: 1, sequences: [{ rows: 1, length: 0 }] },
  {
    kvHeads: 2,
    sequences: [{ rows: 1, length: 5 }, { rows: 1, length: 9, done: true }, { rows: 1, length: 0 }],
  },
  {
    kvHeads: 5,
    sequences: [{ rows: 67, length: 3 }, { rows: 0, length: 4 }, { rows: 5, length: 130, room: 3 }, {
      rows: 129,
      length: 1,
    }],
  },
  {
    kvHeads: 3,
    firstLayer: 2,
    sequences: [{ rows: 2, length: 6 }, { rows: 1, length: 4, done: true }, { rows: 70, length: 1 }],
  },
  // More extents of a sequence, and more rows, than invocations.
  { kvHeads: 23, sequences: [{ rows: 300, length: 2 }, { rows: 3, length: 7, room: 0 }] },
];

/** Rows of waiting sequences, the last sequence first, with the span of each. */
function waitingRows(sequences: readonly Waiting[]): { rows: Row[]; spans: Uint32Array } {
  const rows: Row[] = [];
  const spans = new Uint32Array(2 * sequences.length);
  for (let sequence = sequences.length - 1; sequence >= 0; sequence--) {
    const { rows: count, length } = sequences[sequence];
    spans.set([rows.length, count], 2 * sequence);
    for (let index = 0; index < count; index++) {
      rows.push({ sequence, position: 1000 + 2 * length + 3 * index, index });
    }
  }
  return { rows, spans };
}

function appendCase(shape: AppendShape, share: Positions, seed: number): KernelCase {
  const { kvHeads, sequences, firstLayer = 0 } = shape;
  const { rows, spans } = waitingRows(sequences);
  const random = integers(seed);
  const before: Extent[] = [];
  let table = 5;
  for (let layer = 0; layer < LAYERS; layer++) {
    sequences.forEach(({ rows: count, length: most, room = count + 2 }, s) => {
      for (let head = 0; head < kvHeads; head++) {
        const owner = (firstLayer * sequences.length + s) * kvHeads;
        const from = share === "shared"
          ? (before.length > owner && layer >= firstLayer ? before[owner] : undefined)
          : head === 1 || (head > 0 && share === "layer")
          ? before[before.length - head]
          : undefined;
        const own = from === undefined;
        const length = from?.length ?? Math.max(0, most - random(4));
        const positions = from?.positions ?? table;
        before.push({ base: random(1000), capacity: length + room, start: 99, length, positions });
        if (own) table += length + room + random(3);
      }
    });
  }
  return {
    family: "cacheAppend",
    name: `${share} positions, ${kvHeads} heads, from layer ${firstLayer} on, rows ${
      sequences.map((s) => s.rows)
    }`,
    kernel: cacheAppend({ sharedPositions: share === "shared", reuse: false }),
    parameters: { layers: LAYERS - firstLayer, sequences: sequences.length, kvHeads, firstLayer, delay: 0 },
    data: () => ({
      extents: encodeExtents(before),
      states: encodeStates(sequences.map(({ done = false }) => done)),
      spans,
      rowTable: encodeRows(rows),
      slotPositions: new Uint32Array(table).fill(POSITION_POISON),
    }),
    expected: () => {
      const slotPositions = new Uint32Array(table).fill(POSITION_POISON);
      const after = before.map((extent, i) => {
        const s = Math.floor(i / kvHeads) % sequences.length;
        if (i < firstLayer * sequences.length * kvHeads) return extent;
        const { length, capacity, positions } = extent;
        if (sequences[s].done) return { ...extent, start: length };
        const end = Math.min(length + sequences[s].rows, capacity);
        const own = rows.filter(({ sequence }) => sequence === s);
        for (let slot = length; slot < end; slot++) {
          slotPositions[positions + slot] = own[slot - length].position;
        }
        return { ...extent, start: length, length: end };
      });
      return { extents: encodeExtents(after), slotPositions };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 4 * (before.length * EXTENT_WORDS * 2 + rows.length * 5) },
  };
}

interface RopeShape extends Omit<RopeStoreSpec, "dtype"> {
  readonly kvHeads: number;
  readonly groupSize: number;
  readonly sequences: readonly Waiting[];
  readonly firstHead?: number;
  readonly arenaHeads?: number;
  readonly rotateQ?: boolean;
  /** Position of each sequence's first row. */
  readonly position: number;
}

const FEW: readonly Waiting[] = [{ rows: 1, length: 4 }];
const MIXED: readonly Waiting[] = [
  { rows: 3, length: 11 },
  { rows: 2, length: 0, done: true },
  { rows: 7, length: 2, room: 4 },
  { rows: 0, length: 3 },
];

const ROPES: readonly RopeShape[] = [
  { headSize: 8, rotaryLayout: "half", kvHeads: 1, groupSize: 1, sequences: FEW, position: 0 },
  { headSize: 8, rotaryLayout: "interleaved", kvHeads: 1, groupSize: 3, sequences: FEW, position: 255 },
  { headSize: 32, rotaryLayout: "half", kvHeads: 3, groupSize: 2, sequences: MIXED, position: 250 },
  { headSize: 32, rotaryLayout: "interleaved", kvHeads: 2, groupSize: 1, sequences: MIXED, position: 511 },
  { headSize: 32, rotaryLayout: "none", kvHeads: 2, groupSize: 2, sequences: MIXED, position: 9 },
  // Only a part is rotated; pairs that do not come in fours.
  {
    headSize: 80,
    rotaryLayout: "half",
    rotarySize: 32,
    kvHeads: 2,
    groupSize: 1,
    sequences: MIXED,
    position: 70000,
  },
  {
    headSize: 16,
    rotaryLayout: "interleaved",
    rotarySize: 8,
    kvHeads: 2,
    groupSize: 1,
    sequences: MIXED,
    position: 3,
  },
  { headSize: 12, rotaryLayout: "half", kvHeads: 2, groupSize: 2, sequences: MIXED, position: 1234 },
  {
    headSize: 12,
    rotaryLayout: "interleaved",
    rotarySize: 6,
    kvHeads: 2,
    groupSize: 2,
    sequences: MIXED,
    position: 131000,
  },
  // Arenas of a group of heads.
  {
    headSize: 16,
    rotaryLayout: "half",
    kvHeads: 4,
    groupSize: 2,
    sequences: MIXED,
    firstHead: 1,
    arenaHeads: 2,
    position: 17,
  },
  {
    headSize: 16,
    rotaryLayout: "half",
    kvHeads: 4,
    groupSize: 2,
    sequences: MIXED,
    firstHead: 3,
    rotateQ: false,
    position: 17,
  },
];

/** One case, or two where the stored type rounds and the queries must be as exact as ever. */
function ropeCases(shape: RopeShape, dtype: "f16" | "f32", seed: number): KernelCase[] {
  const { headSize, rotaryLayout, kvHeads, groupSize, sequences, rotateQ = true, position } = shape;
  const rotarySize = rotaryLayout === "none" ? 0 : shape.rotarySize ?? headSize;
  const firstHead = shape.firstHead ?? 0;
  const arenaHeads = shape.arenaHeads ?? kvHeads - firstHead;
  const heads = kvHeads * groupSize;
  const random = integers(seed);
  const rows = waitingRows(sequences).rows.map((row) => ({ ...row, position: position + row.index }));
  const extents: Extent[] = [];
  let slots = 2;
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const { rows: count, length: most, done = false, room = count + 1 } of sequences) {
      for (let head = 0; head < kvHeads; head++) {
        const start = Math.max(0, most - random(3));
        const capacity = start + room;
        const here = layer === LAYER && head >= firstHead && head < firstHead + arenaHeads;
        const length = Math.min(start + (done ? 0 : count), capacity);
        extents.push({ base: here ? slots : 1, capacity, start, length, positions: 3 });
        if (here) slots += capacity + random(3);
      }
    }
  }
  // Columns stand in another order than usual, with room between.
  const kOffset = 4;
  const qOffset = kOffset + kvHeads * headSize + 8;
  const vOffset = qOffset + heads * headSize;
  const stride = vOffset + kvHeads * headSize + 4;
  const frequencies = rotaryFrequencies(rotarySize);
  const kernel = ropeStore({ dtype, headSize, rotaryLayout, rotarySize: shape.rotarySize });
  const arena = () => store(poisoned(slots * headSize), dtype);

  const expected = (qkv: Float32Array) => {
    const keys = new Float64Array(slots * headSize).fill(Infinity);
    const values = keys.slice();
    const turned = Float64Array.from(qkv);
    rows.forEach((row, r) => {
      const headAt = (offset: number, head: number): Float64Array => {
        const at = r * stride + offset + head * headSize;
        return Float64Array.from(qkv.subarray(at, at + headSize));
      };
      for (let head = 0; head < heads && rotateQ; head++) {
        turned.set(
          rotate(headAt(qOffset, head), row.position, rotaryLayout, frequencies),
          r * stride + qOffset + head * headSize,
        );
      }
      if (sequences[row.sequence].done) return;
      for (let head = firstHead; head < firstHead + arenaHeads; head++) {
        const extent = extents[(LAYER * sequences.length + row.sequence) * kvHeads + head];
        const slot = extent.start + row.index;
        if (slot >= extent.capacity) continue;
        keys.set(
          rotate(headAt(kOffset, head), row.position, rotaryLayout, frequencies),
          (extent.base + slot) * headSize,
        );
        values.set(headAt(vOffset, head), (extent.base + slot) * headSize);
      }
    });
    return { qkv: turned, keys, values };
  };

  const test: Omit<KernelCase, "expected" | "tolerance"> = {
    family: "ropeStore",
    name:
      `head ${headSize}, ${rotaryLayout} ${rotarySize}, ${heads}/${kvHeads} heads [${firstHead}, +${arenaHeads}), ` +
      `position ${position}`,
    kernel,
    parameters: {
      rows: rows.length,
      heads,
      kvHeads,
      stride,
      qOffset,
      kOffset,
      vOffset,
      layer: LAYER,
      sequences: sequences.length,
      firstHead,
      arenaHeads,
      rotateQ: rotateQ ? 1 : 0,
    },
    data: () => ({
      qkv: randomArray(rows.length * stride, seed),
      ropeTable: ropeTable(frequencies, position + Math.max(...sequences.map((s) => s.rows))),
      rowTable: encodeRows(rows),
      extents: encodeExtents(extents),
      states: encodeStates(sequences.map(({ done = false }) => done)),
      keys: arena(),
      values: arena(),
    }),
    outputType: { keys: dtype, values: dtype },
    work: {
      flops: rows.length * (heads + arenaHeads) * rotarySize * 3,
      bytes: rows.length * headSize * (8 * heads + (dtype === "f16" ? 12 : 16) * arenaHeads),
    },
  };
  const all: KernelCase = { ...test, expected: ({ qkv }) => expected(qkv as Float32Array), tolerance: 1e-5 };
  if (dtype === "f32") return [all];
  return [
    { ...all, expected: ({ qkv }) => ({ qkv: expected(qkv as Float32Array).qkv }) },
    { ...all, tolerance: 1e-3 },
  ];
}

/** Cases of both kernels. They use no subgroups, so those of a storage type come once. */
export function cacheCases({ dtype, subgroups }: Variant): KernelCase[] {
  if (subgroups) return [];
  return [
    ...APPENDS.flatMap((shape, i) => [
      appendCase(shape, "shared", i + 1),
      appendCase(shape, "layer", i + 50),
      appendCase(shape, "own", i + 100),
    ]),
    ...ROPES.flatMap((shape, i) => ropeCases(shape, dtype, i + 200)),
  ];
}

/** A step of Llama-3.2-1B: one row each of 32 sequences, and a prompt. */
export function cacheBench({ dtype }: Variant): KernelCase[] {
  const model = { headSize: 64, rotaryLayout: "half", kvHeads: 8, groupSize: 4, position: 0 } as const;
  const decode = Array.from({ length: 32 }, () => ({ rows: 1, length: 512 }));
  const prompt = [{ rows: 4096, length: 0 }];
  return [
    appendCase({ kvHeads: 8, sequences: decode }, "shared", 1),
    ...[decode, prompt].map((sequences) => ropeCases({ ...model, sequences }, dtype, 2).at(-1)!),
  ];
}
