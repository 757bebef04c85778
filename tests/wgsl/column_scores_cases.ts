// Cases of columnScores.

import { columnScores } from "../../wgsl/column_scores.ts";
import { SELECTION_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, store, type Variant } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import { columnScore, logSumExp } from "../oracles/column_scores.ts";
import {
  extentOf,
  makeScene,
  poisoned,
  queryHeads,
  type Scene,
  sceneData,
  sceneParameters,
  type SceneSetup,
  sceneView,
  type SequenceSetup,
} from "./attention_scene.ts";

/** A sequence, and how many of its newest rows score. */
interface ScoredSequence extends SequenceSetup {
  readonly scored: number;
}

interface ScoresSetup extends Omit<SceneSetup, "sequences"> {
  readonly sequences: readonly ScoredSequence[];
  readonly distanceWeight: number;
  /** What stands in place of the mean over rows and heads. */
  readonly sums?: "group" | "heads";
  /** Whether each KV head's mean is over its own query heads. */
  readonly groupMeans?: boolean;
  /** Whether scores grow so steeply from slot to slot that those of unseen keys are out of the range of exp. */
  readonly steep?: boolean;
}

/** Rows of a step that were picked from more: their positions grow with gaps. */
function withGaps(scene: Scene): Scene {
  const spread = (position: number): number => 2 * position + (position % 3 === 0 ? 1 : 0);
  return {
    ...scene,
    rows: scene.rows.map((row) => ({ ...row, position: spread(row.position) })),
    slotPositions: scene.slotPositions.map(spread),
  };
}

/** Every score is twice the key's place in the arena. */
function withSteepScores(scene: Scene): Scene {
  const { headSize, dtype } = scene.setup;
  const comb = (length: number, at: (index: number) => number): Float32Array =>
    Float32Array.from({ length }, (_, i) => i % headSize === 0 ? at(i / headSize) : 0);
  return {
    ...scene,
    scale: 1,
    q: () => comb(scene.q().length, () => 1),
    keys: () => store(comb(scene.keys().length, (slot) => 2 * slot), dtype),
  };
}

/** First row of each sequence among the packed rows; 0 for one without. */
function firstRows(scene: Scene): number[] {
  return scene.setup.sequences.map((_, s) => Math.max(0, scene.rows.findIndex((row) => row.sequence === s)));
}

function encodeSelections(sequences: readonly ScoredSequence[], firsts: readonly number[]): Uint32Array {
  const table = new Uint32Array(sequences.length * SELECTION_WORDS);
  // What the kernel must not look at is not as it would be.
  sequences.forEach(({ rows, scored }, s) =>
    table.set([firsts[s], rows, 99, scored, 98, 97, 96, 95], s * SELECTION_WORDS)
  );
  return table;
}

/** Log of the sum of exp of each scored row, NaN for all others. */
function logSumExps(
  scene: Scene,
  sequences: readonly ScoredSequence[],
  data: Record<string, HostArray>,
): Float32Array {
  const out = new Float32Array(scene.rows.length * scene.heads).fill(NaN);
  const view = sceneView(scene, data);
  for (const head of queryHeads(scene)) {
    const slots = sequences.map((_, s) => view.slots(s, Math.floor(head / scene.setup.groupSize)));
    scene.rows.forEach(({ sequence, index, position }, r) => {
      const { rows, scored } = sequences[sequence];
      if (index < rows - scored) return;
      out[r * scene.heads + head] = logSumExp(view.query(r, head), position, slots[sequence], scene.scale);
    });
  }
  return out;
}

/** Call of columnScores over a scene. */
function scoresCase(setup: ScoresSetup, sampledColumns = Infinity): KernelCase {
  const { dtype, headSize, kvHeads, groupSize, sequences, distanceWeight, sums, groupMeans } = setup;
  const gaps = withGaps(makeScene(setup));
  const scene = setup.steep ? withSteepScores(gaps) : gaps;
  const firsts = firstRows(scene);
  const stride = scene.rows.length + 3;
  const { heads, scale, firstHead, arenaHeads } = scene;
  const pairs = sequences.reduce(
    (sum, { rows, scored }) => sum + scored * (rows - scored) + scored * (scored + 1) / 2,
    0,
  );
  const scoredRows = sequences.reduce((sum, { scored }) => sum + scored, 0);
  return {
    family: "columnScores",
    name: `head ${headSize}, ${heads}/${kvHeads} heads [${firstHead}, +${arenaHeads}), ` +
      `rows ${sequences.map(({ rows }) => rows)}, scored ${sequences.map(({ scored }) => scored)}, ` +
      `past ${sequences.map(({ past }) => past)}${setup.steep ? ", steep" : ""}`,
    kernel: columnScores({
      dtype,
      headSize,
      groupSize,
      ...(sums ? { sums } : {}),
      ...(groupMeans ? { groupMeans } : {}),
    }),
    parameters: {
      ...sceneParameters(scene),
      // Workgroups beyond all rows have nothing to do.
      columns: Math.max(...sequences.map(({ rows }) => rows)) + 70,
      distanceWeight,
      stride,
    },
    data: () => {
      const { values: _, ...data } = sceneData(scene);
      return {
        ...data,
        selections: encodeSelections(sequences, firsts),
        logSumExps: logSumExps(scene, sequences, { ...data, values: data.keys }),
        scores: poisoned(kvHeads * stride),
      };
    },
    expected: (data) => {
      const view = sceneView(scene, { ...data, values: data.keys });
      const stored = data.logSumExps as Float32Array;
      const sampled = sampledColumns < Infinity;
      // A sample is the beginning of the first sequence in the first head.
      const scores = new Float64Array(sampled ? sampledColumns : kvHeads * stride).fill(Infinity);
      for (let head = firstHead; head < firstHead + (sampled ? 1 : arenaHeads); head++) {
        sequences.forEach(({ rows, scored }, s) => {
          const { start } = extentOf(scene, s, head);
          const columns = view.slots(s, head).slice(start, start + Math.min(rows, sampledColumns));
          const scoring = Array.from({ length: scored }, (_, i) => {
            const row = firsts[s] + rows - scored + i;
            return {
              position: scene.rows[row].position,
              queries: Array.from({ length: groupSize }, (_, h) => {
                const of = head * groupSize + h;
                return { query: view.query(row, of), logSumExp: stored[row * heads + of] };
              }),
            };
          });
          // The oracle divides by rows and heads.
          const times = sums ? scored * (sums === "group" ? kvHeads : 1) : groupMeans ? kvHeads : 1;
          columns.forEach((column, j) =>
            scores[head * stride + firsts[s] + j] = times *
              columnScore(column, scoring, heads, scale, distanceWeight)
          );
        });
      }
      return { scores };
    },
    tolerance: 1e-5,
    work: {
      flops: pairs * arenaHeads * groupSize * headSize * 2,
      bytes: sequences.reduce((sum, { rows }) => sum + rows, 0) * arenaHeads *
          (headSize * (dtype === "f16" ? 2 : 4) + 4) +
        scoredRows * arenaHeads * groupSize * (headSize + 1) * 4,
    },
  };
}

const ONE = [{ rows: 1, past: 0, scored: 1 }];
// One tile of columns exactly; lines over several tiles, the first of which the last columns skip.
const ALL = [{ rows: 64, past: 0, scored: 64 }, { rows: 0, past: 5, scored: 0 }, {
  rows: 193,
  past: 11,
  scored: 193,
}];
const MIXED = [
  { rows: 5, past: 0, scored: 1 },
  { rows: 131, past: 70, scored: 45 },
  {
    rows: 0,
    past: 0,
    scored: 0,
  },
  { rows: 1, past: 9, scored: 1 },
  { rows: 67, past: 3, scored: 66 },
];
const LAST = [{ rows: 65, past: 1, scored: 1 }];

const SCORES: readonly Omit<ScoresSetup, "dtype" | "seed">[] = [
  { headSize: 8, kvHeads: 1, groupSize: 1, sequences: ONE, distanceWeight: 7 },
  { headSize: 8, kvHeads: 2, groupSize: 1, sequences: MIXED, ragged: 3, distanceWeight: 1 },
  { headSize: 8, kvHeads: 1, groupSize: 1, sequences: ALL, steep: true, distanceWeight: 1 },
  { headSize: 12, kvHeads: 2, groupSize: 3, sequences: ALL, ragged: 4, distanceWeight: 1.75 },
  { headSize: 12, kvHeads: 2, groupSize: 3, sequences: ALL, ragged: 4, distanceWeight: 1, sums: "group" },
  { headSize: 8, kvHeads: 2, groupSize: 4, sequences: MIXED, distanceWeight: 1, sums: "heads" },
  { headSize: 8, kvHeads: 2, groupSize: 4, sequences: MIXED, distanceWeight: 2, groupMeans: true },
  { headSize: 12, kvHeads: 3, groupSize: 3, sequences: LAST, firstHead: 1, arenaHeads: 1, distanceWeight: 3 },
  {
    headSize: 36,
    kvHeads: 4,
    groupSize: 4,
    sequences: MIXED,
    firstHead: 1,
    arenaHeads: 2,
    ragged: 3,
    shuffled: true,
    distanceWeight: 0.25,
  },
  { headSize: 96, kvHeads: 1, groupSize: 1, sequences: LAST, distanceWeight: 1 },
  { headSize: 128, kvHeads: 2, groupSize: 4, sequences: MIXED, firstHead: 1, distanceWeight: 2 },
];

/** Cases for the tests. */
export function cases({ dtype }: Variant): KernelCase[] {
  return SCORES.map((setup, i) => scoresCase({ ...setup, dtype, seed: i + 61 }));
}

/** A call of which all scores add up to `meanWeight`: every key of the scored rows is a column of it. */
export function wholeAttention({ dtype }: Variant): KernelCase & { readonly meanWeight: number } {
  const setup = { headSize: 36, kvHeads: 2, groupSize: 4, dtype, distanceWeight: 2, seed: 60 };
  const sequences = [{ rows: 83, past: 0, scored: 40 }];
  return { ...scoresCase({ ...setup, sequences }), meanWeight: (1 + setup.distanceWeight) / 2 };
}

/** A prompt of 2048 tokens, the newest fifth of which scores: Llama-3.2-1B and Llama-3-8B. */
export function bench({ dtype }: Variant): KernelCase[] {
  const sequences = [{ rows: 2048, past: 0, scored: 410 }];
  const shared = { kvHeads: 8, groupSize: 4, dtype, sequences, distanceWeight: 1.5 };
  return [
    scoresCase({ ...shared, headSize: 64, seed: 1 }, 16),
    scoresCase({ ...shared, headSize: 128, seed: 2 }, 16),
  ];
}
