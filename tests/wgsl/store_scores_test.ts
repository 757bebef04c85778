// The scores of a prefill step's rows by the slots that the rows got.

import { storeScores } from "../../wgsl/store_scores.ts";
import { checkCase, type KernelCase, randomArray, sharedGpu } from "../harness/kernel_case.ts";
import {
  encodeExtents,
  encodeRows,
  encodeStates,
  extentOf,
  LAYER,
  makeScene,
  poisoned,
  type SequenceSetup,
} from "./attention_scene.ts";

interface Shape {
  readonly kvHeads: number;
  /** Heads with scores of their own. */
  readonly scoredHeads: number;
  readonly sequences: readonly SequenceSetup[];
  /** Newest slots of every second sequence that its capacity leaves no room for. Default: 0. */
  readonly missing?: number;
  /** Rows of the step that are looked at. Default: all. */
  readonly rows?: number;
}

const MIXED = [{ rows: 5, past: 0 }, { rows: 67, past: 9 }, { rows: 30, past: 2, done: true }, {
  rows: 1,
  past: 70,
}];

const SHAPES: readonly Shape[] = [
  { kvHeads: 1, scoredHeads: 1, sequences: [{ rows: 1, past: 0 }] },
  { kvHeads: 3, scoredHeads: 3, sequences: MIXED },
  // The other heads have the positions of the first one.
  { kvHeads: 3, scoredHeads: 1, sequences: MIXED },
  { kvHeads: 2, scoredHeads: 2, sequences: MIXED, missing: 12 },
  { kvHeads: 2, scoredHeads: 2, sequences: [{ rows: 130, past: 3 }] },
  // A step that scores nothing.
  { kvHeads: 2, scoredHeads: 2, sequences: MIXED, rows: 0 },
];

function scoresCase({ kvHeads, scoredHeads, sequences, missing = 0, rows }: Shape, seed: number): KernelCase {
  const base = makeScene({ dtype: "f32", headSize: 4, kvHeads, groupSize: 1, ragged: 5, sequences, seed });
  const scene = {
    ...base,
    extents: base.extents.map((extent, i) => {
      const full = Math.floor(i / kvHeads) % sequences.length % 2 === 1;
      return full ? { ...extent, capacity: Math.max(0, extent.length - missing) } : extent;
    }),
  };
  const stride = scene.rows.length + 3;
  const entries = scene.slotPositions.length;
  return {
    family: "storeScores",
    name: `${scoredHeads} of ${kvHeads} heads, rows ${sequences.map(({ rows }) => rows)}`,
    kernel: storeScores(),
    parameters: {
      rows: rows ?? scene.rows.length,
      scoredHeads,
      kvHeads,
      layer: LAYER,
      sequences: sequences.length,
      stride,
    },
    data: () => ({
      scores: randomArray(scoredHeads * stride, seed),
      rowTable: encodeRows(scene.rows),
      extents: encodeExtents(scene.extents),
      states: encodeStates(sequences.map(({ done = false }) => done)),
      slotScores: poisoned(entries),
    }),
    expected: ({ scores }) => {
      const slotScores = poisoned(entries);
      sequences.forEach(({ done }, sequence) => {
        if (done || rows === 0) return;
        for (let head = 0; head < scoredHeads; head++) {
          const { positions, start, capacity } = extentOf(scene, sequence, head);
          // A sequence's rows stand together.
          const first = head * stride + scene.rows.findIndex((row) => row.sequence === sequence);
          const own = (scores as Float32Array).subarray(first, first + sequences[sequence].rows);
          slotScores.set(own.subarray(0, Math.max(0, capacity - start)), positions + start);
        }
      });
      return { slotScores: new Uint32Array(slotScores.buffer) };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 8 * scene.rows.length * scoredHeads },
  };
}

Deno.test({
  name: "storeScores() gives each slot of the step the score of its row, and touches no other",
  // The device is shared by all tests and outlives them.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const gpu = await sharedGpu();
    for (const [i, shape] of SHAPES.entries()) await checkCase(gpu, scoresCase(shape, i + 1));
  },
});
