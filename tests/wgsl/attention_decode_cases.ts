// Cases of attentionDecode and attentionReduce.

import { attentionDecode } from "../../wgsl/attention_decode.ts";
import { attentionReduce } from "../../wgsl/attention_reduce.ts";
import { type KernelCase, randomArray, type Variant } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import { partialAttention } from "../oracles/attention.ts";
import {
  encodeExtents,
  encodeRows,
  LAYER,
  liveBytes,
  makeScene,
  poisoned,
  queryHeads,
  type Scene,
  sceneData,
  sceneParameters,
  type SceneSetup,
  sceneView,
  visiblePairs,
} from "./attention_scene.ts";

/** Call of attentionDecode over a scene; `splits` may be more than needed. */
export function decodeCall(scene: Scene, split: number, splits: number) {
  const { dtype, headSize, groupSize } = scene.setup;
  return {
    kernel: attentionDecode({ dtype, headSize, groupSize, split }),
    parameters: { ...sceneParameters(scene), rows: scene.rows.length, splits },
    data: () => ({
      ...sceneData(scene),
      partials: poisoned(scene.rows.length * scene.heads * splits * headSize),
      statistics: poisoned(scene.rows.length * scene.heads * splits * 2),
    }),
  };
}

function decodeExpected(
  scene: Scene,
  split: number,
  splits: number,
  sampledRows: number,
  data: Record<string, HostArray>,
): Record<string, Float64Array> {
  const view = sceneView(scene, data);
  const { headSize, groupSize } = scene.setup;
  const count = sampledRows * scene.heads * splits;
  const partials = new Float64Array(count * headSize).fill(Infinity);
  const statistics = new Float64Array(count * 2).fill(Infinity);
  let unseen = false;
  for (let r = 0; r < sampledRows; r++) {
    const row = scene.rows[r];
    for (const head of queryHeads(scene)) {
      const slots = view.slots(row.sequence, Math.floor(head / groupSize));
      for (let i = 0; i * split < slots.length; i++) {
        const part = slots.slice(i * split, (i + 1) * split);
        const { output, sum, maximum } = partialAttention(
          view.query(r, head),
          row.position,
          part,
          scene.scale,
        );
        const at = (r * scene.heads + head) * splits + i;
        partials.set(output, at * headSize);
        statistics.set([maximum, sum], at * 2);
        if (sum === 0) unseen = true;
      }
    }
  }
  // Where a split has no visible slot, its maximum means nothing.
  return unseen ? { partials } : { partials, statistics };
}

function decodeCase(setup: SceneSetup, split: number, spare: number, sampledRows?: number): KernelCase {
  const scene = makeScene(setup);
  const splits = Math.ceil(scene.longest / split) + spare;
  const { headSize, kvHeads, groupSize, sequences } = setup;
  return {
    family: "attentionDecode",
    name:
      `head ${headSize}, ${scene.heads}/${kvHeads} heads [${scene.firstHead}, +${scene.arenaHeads}), split ${split}, ` +
      `rows ${scene.rows.length}, past ${sequences.slice(0, 8).map(({ past }) => past)}${
        setup.shuffled ? ", shuffled" : ""
      }`,
    ...decodeCall(scene, split, splits),
    expected: (data) =>
      decodeExpected(scene, split, splits, Math.min(sampledRows ?? Infinity, scene.rows.length), data),
    tolerance: 1e-5,
    work: {
      flops: visiblePairs(scene) * headSize * 4,
      bytes: liveBytes(scene) +
        scene.rows.length * scene.arenaHeads * groupSize * headSize * 4 * (1 + splits),
    },
  };
}

const ONE = [{ rows: 1, past: 0 }];
const PAIR = [{ rows: 1, past: 70 }, { rows: 1, past: 3 }];
const RAGGED = [{ rows: 1, past: 130 }, { rows: 2, past: 61 }, { rows: 1, past: 40, done: true }, {
  rows: 1,
  past: 1,
}];

// Where a storage type brings nothing new, the other one is enough: compiling is what takes time.
const DECODES: readonly [
  Omit<SceneSetup, "dtype" | "seed">,
  split: number,
  spare: number,
  only?: "f16" | "f32",
][] = [
  [{ headSize: 8, kvHeads: 1, groupSize: 1, sequences: ONE }, 64, 0],
  [{ headSize: 8, kvHeads: 2, groupSize: 1, sequences: RAGGED, ragged: 7 }, 64, 1],
  [{ headSize: 8, kvHeads: 2, groupSize: 1, sequences: RAGGED, ragged: 7, shuffled: true }, 64, 0],
  [{ headSize: 12, kvHeads: 2, groupSize: 4, sequences: PAIR }, 32, 0, "f16"],
  [{ headSize: 16, kvHeads: 3, groupSize: 2, sequences: PAIR, firstHead: 1, arenaHeads: 1 }, 64, 0],
  [{ headSize: 16, kvHeads: 3, groupSize: 2, sequences: RAGGED, firstHead: 2, ragged: 5 }, 64, 2],
  [{ headSize: 32, kvHeads: 2, groupSize: 1, sequences: PAIR, ragged: 2 }, 64, 0, "f32"],
  [{ headSize: 32, kvHeads: 2, groupSize: 2, sequences: PAIR, ragged: 2 }, 128, 0],
  [{ headSize: 32, kvHeads: 2, groupSize: 4, sequences: RAGGED, ragged: 30 }, 64, 0],
  [{ headSize: 32, kvHeads: 2, groupSize: 4, sequences: RAGGED, ragged: 30, shuffled: true }, 64, 0],
  [{ headSize: 32, kvHeads: 1, groupSize: 8, sequences: PAIR }, 64, 0, "f16"],
  [{ headSize: 32, kvHeads: 1, groupSize: 7, sequences: PAIR }, 32, 0, "f32"],
  [{ headSize: 32, kvHeads: 1, groupSize: 16, sequences: PAIR }, 64, 0, "f16"],
  [{ headSize: 52, kvHeads: 1, groupSize: 3, sequences: PAIR }, 64, 0, "f32"],
  [{ headSize: 64, kvHeads: 2, groupSize: 4, sequences: RAGGED, ragged: 9 }, 64, 0],
  [{ headSize: 80, kvHeads: 1, groupSize: 1, sequences: PAIR }, 64, 0, "f16"],
  [{ headSize: 96, kvHeads: 1, groupSize: 2, sequences: PAIR }, 64, 0, "f32"],
  [{ headSize: 128, kvHeads: 1, groupSize: 4, sequences: PAIR }, 64, 0],
  [{ headSize: 256, kvHeads: 1, groupSize: 2, sequences: PAIR }, 64, 0, "f16"],
];

interface ReduceShape {
  readonly headSize: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly split: number;
  readonly splits: number;
  /** Length of each KV head's cache, by sequence; one row each. */
  readonly lengths: readonly (readonly number[])[];
}

const REDUCES: readonly ReduceShape[] = [
  { headSize: 8, heads: 1, kvHeads: 1, split: 64, splits: 1, lengths: [[1]] },
  {
    headSize: 32,
    heads: 4,
    kvHeads: 2,
    split: 64,
    splits: 5,
    lengths: [[64, 65], [0, 300], [320, 1], [129, 128]],
  },
  { headSize: 52, heads: 3, kvHeads: 1, split: 32, splits: 19, lengths: [[600], [31]] },
  { headSize: 256, heads: 2, kvHeads: 2, split: 128, splits: 40, lengths: [[5000, 4999]] },
];

function reduceCase(shape: ReduceShape, seed: number): KernelCase {
  const { headSize, heads, kvHeads, split, splits, lengths } = shape;
  const rows = lengths.map((_, sequence) => ({ sequence, position: 9999, index: 0 }));
  const outStride = heads * headSize + 4;
  const count = rows.length * heads * splits;
  const extents = Array.from({ length: LAYER * rows.length * kvHeads }, () => 777)
    .concat(lengths.flat()).map((length) => ({ base: 1, capacity: length, start: 0, length, positions: 2 }));
  const used = (row: number, head: number): number =>
    Math.ceil(lengths[row][Math.floor(head / (heads / kvHeads))] / split);
  const make = () => {
    const partials = new Float32Array(count * headSize).fill(NaN);
    const statistics = new Float32Array(count * 2).fill(NaN);
    for (let n = 0; n < count; n++) {
      const i = n % splits;
      if (i >= used(Math.floor(n / splits / heads), Math.floor(n / splits) % heads)) continue;
      // Every third split but the first has no visible slot.
      const seen = i % 3 !== 2;
      partials.set(seen ? randomArray(headSize, seed + n) : new Float32Array(headSize), n * headSize);
      const [maximum, sum] = randomArray(2, seed + n + 10000);
      statistics.set(seen ? [8 * maximum, 3 + sum] : [-3.4e38, 0], n * 2);
    }
    return { partials, statistics };
  };
  return {
    family: "attentionReduce",
    name: `head ${headSize}, ${heads}/${kvHeads} heads, split ${split}, splits ${splits}, lengths ${
      lengths.join(" | ")
    }`,
    kernel: attentionReduce({ headSize }),
    parameters: {
      rows: rows.length,
      heads,
      kvHeads,
      layer: LAYER,
      sequences: rows.length,
      splits,
      split,
      outStride,
    },
    data: () => ({
      ...make(),
      rowTable: encodeRows(rows),
      extents: encodeExtents(extents),
      out: poisoned(rows.length * outStride),
    }),
    expected: ({ partials, statistics }) => {
      const out = new Float64Array(rows.length * outStride).fill(Infinity);
      for (let r = 0; r < rows.length; r++) {
        for (let head = 0; head < heads; head++) {
          const first = (r * heads + head) * splits;
          const parts = Array.from({ length: used(r, head) }, (_, i) => first + i);
          const maximum = Math.max(...parts.map((n) => statistics[2 * n]));
          const weights = parts.map((n) => Math.exp(statistics[2 * n] - maximum));
          const total = parts.reduce((sum, n, i) => sum + weights[i] * statistics[2 * n + 1], 0);
          for (let d = 0; d < headSize; d++) {
            const sum = parts.reduce((sum, n, i) => sum + weights[i] * partials[n * headSize + d], 0);
            out[r * outStride + head * headSize + d] = total === 0 ? 0 : sum / total;
          }
        }
      }
      return { out };
    },
    tolerance: 1e-5,
    work: {
      flops: count * headSize * 2,
      bytes: 4 * (count * (headSize + 2) + rows.length * heads * headSize),
    },
  };
}

/** Cases of both kernels. They use no subgroups, so those of a storage type come once. */
export function decodeCases({ dtype, subgroups }: Variant): KernelCase[] {
  if (subgroups) return [];
  return [
    ...DECODES.filter(([, , , only = dtype]) => only === dtype).map(([setup, split, spare], i) =>
      decodeCase({ ...setup, dtype, seed: i + 1 }, split, spare)
    ),
    ...(dtype === "f32" ? REDUCES.map((shape, i) => reduceCase(shape, 1000 * i)) : []),
  ];
}

/** Decode steps of Llama-3.2-1B and Llama-3-8B. */
export function decodeBench({ dtype }: Variant): KernelCase[] {
  const small = { headSize: 64, kvHeads: 8, groupSize: 4, dtype, seed: 1 };
  const large = { headSize: 128, kvHeads: 8, groupSize: 4, dtype, seed: 2 };
  const batch = (count: number, past: number) => Array.from({ length: count }, () => ({ rows: 1, past }));
  return [
    decodeCase({ ...small, sequences: batch(1, 511) }, 64, 0),
    decodeCase({ ...small, sequences: batch(1, 8191) }, 64, 0),
    decodeCase({ ...small, sequences: batch(32, 511) }, 64, 0, 1),
    decodeCase({ ...small, sequences: batch(32, 2047) }, 64, 0, 1),
    decodeCase({ ...small, sequences: batch(32, 2047) }, 128, 0, 1),
    decodeCase({ ...large, sequences: batch(32, 1023) }, 64, 0, 1),
    decodeCase({ ...large, sequences: batch(32, 1023) }, 128, 0, 1),
    reduceCase(
      {
        headSize: 64,
        heads: 32,
        kvHeads: 8,
        split: 64,
        splits: 32,
        lengths: Array.from({ length: 32 }, () => Array.from({ length: 8 }, () => 2048)),
      },
      5,
    ),
  ];
}
