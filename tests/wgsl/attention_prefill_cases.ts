// Cases of attentionPrefill.

import { attentionPrefill, TILE_ROWS } from "../../wgsl/attention_prefill.ts";
import { TILE_WORDS } from "../../wgsl/tables.ts";
import type { KernelCase, Variant } from "../harness/kernel_case.ts";
import { attention } from "../oracles/attention.ts";
import {
  encodeTiles,
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

/** Call of attentionPrefill over a scene, in tiles of at most `tileRows`, with or without the sums' logs. */
export function prefillCall(
  scene: Scene,
  subgroups: boolean,
  ordered: boolean,
  tileRows: number,
  logSumExp?: boolean,
) {
  const { dtype, headSize } = scene.setup;
  const outStride = scene.heads * headSize + 4;
  const tiles = encodeTiles(scene.rows, tileRows);
  return {
    kernel: attentionPrefill({ dtype, headSize, subgroups, ordered, logSumExp }),
    parameters: { ...sceneParameters(scene), tiles: tiles.length / TILE_WORDS, outStride },
    data: () => ({
      ...sceneData(scene),
      tiles,
      out: poisoned(scene.rows.length * outStride),
      logSumExps: poisoned(scene.rows.length * scene.heads),
    }),
  };
}

function prefillCase(
  setup: SceneSetup,
  subgroups: boolean,
  ordered: boolean,
  tileRows = TILE_ROWS,
  sampledRows?: number,
): KernelCase {
  const scene = makeScene(setup);
  const { headSize, kvHeads, groupSize, sequences } = setup;
  const call = prefillCall(scene, subgroups, ordered, tileRows);
  const { outStride } = call.parameters;
  return {
    family: "attentionPrefill",
    name: `head ${headSize}, ${scene.heads}/${kvHeads} heads [${scene.firstHead}, +${scene.arenaHeads}), ` +
      `rows ${sequences.map(({ rows }) => rows)}, past ${sequences.map(({ past }) => past)}` +
      `${setup.shuffled ? ", shuffled" : ""}, tiles of ${tileRows}`,
    ...call,
    expected: (data) => {
      const view = sceneView(scene, data);
      const count = Math.min(sampledRows ?? Infinity, scene.rows.length);
      const out = new Float64Array(count * outStride).fill(Infinity);
      for (const head of queryHeads(scene)) {
        const slots = sequences.map((_, s) => view.slots(s, Math.floor(head / groupSize)));
        for (let r = 0; r < count; r++) {
          const { sequence, position } = scene.rows[r];
          out.set(
            attention(view.query(r, head), position, slots[sequence], scene.scale),
            r * outStride + head * headSize,
          );
        }
      }
      return { out };
    },
    tolerance: 1e-5,
    work: {
      flops: visiblePairs(scene) * headSize * 4,
      bytes: liveBytes(scene) + scene.rows.length * queryHeads(scene).length * headSize * 8,
    },
  };
}

export const MIXED = [{ rows: 5, past: 0 }, { rows: 67, past: 9 }, { rows: 3, past: 2, done: true }, {
  rows: 1,
  past: 70,
}];
const PROMPT = [{ rows: 37, past: 0 }];

// Rows that see nothing: there is no slot, or all slots have later positions.
export const BLIND = [{ rows: 2, past: 0, done: true }, { rows: 2, past: 21, done: true, position: 0 }, {
  rows: 2,
  past: 0,
}];

const PREFILLS: readonly [Omit<SceneSetup, "dtype" | "seed">, ordered: boolean, tileRows?: number][] = [
  [{ headSize: 8, kvHeads: 1, groupSize: 1, sequences: [{ rows: 1, past: 0 }] }, true],
  [{ headSize: 8, kvHeads: 2, groupSize: 1, sequences: MIXED, ragged: 3 }, true, 13],
  [{ headSize: 12, kvHeads: 2, groupSize: 2, sequences: PROMPT }, false],
  [{ headSize: 16, kvHeads: 2, groupSize: 8, sequences: PROMPT }, true],
  [{ headSize: 32, kvHeads: 2, groupSize: 2, sequences: MIXED, ragged: 3 }, true],
  [{ headSize: 32, kvHeads: 2, groupSize: 2, sequences: MIXED, ragged: 3 }, false, 7],
  [{ headSize: 32, kvHeads: 2, groupSize: 4, sequences: MIXED, ragged: 3, shuffled: true }, false],
  [{ headSize: 32, kvHeads: 3, groupSize: 2, sequences: MIXED, firstHead: 1, arenaHeads: 1 }, true],
  [{ headSize: 32, kvHeads: 3, groupSize: 1, sequences: MIXED, firstHead: 2, shuffled: true }, false],
  [{ headSize: 32, kvHeads: 1, groupSize: 1, sequences: BLIND }, true],
  [{ headSize: 32, kvHeads: 1, groupSize: 1, sequences: BLIND }, false],
  [
    { headSize: 64, kvHeads: 2, groupSize: 2, sequences: [{ rows: 70, past: 3 }, { rows: 9, past: 33 }] },
    true,
  ],
  [{ headSize: 80, kvHeads: 1, groupSize: 1, sequences: PROMPT }, true],
  [{ headSize: 84, kvHeads: 1, groupSize: 1, sequences: PROMPT }, true],
  [{ headSize: 96, kvHeads: 1, groupSize: 1, sequences: PROMPT }, true],
  [{ headSize: 128, kvHeads: 1, groupSize: 2, sequences: PROMPT }, true],
  [{ headSize: 256, kvHeads: 1, groupSize: 1, sequences: PROMPT }, true],
];

/** Cases of the kernel. Large heads compile slowly: each comes with both types, and with and without subgroups, once. */
export function prefillCases({ dtype, subgroups }: Variant): KernelCase[] {
  return PREFILLS
    .filter(([{ headSize }]) => headSize <= 64 || subgroups === (dtype === "f16"))
    .map(([setup, ordered, tileRows], i) =>
      prefillCase({ ...setup, dtype, seed: i + 31 }, subgroups, ordered, tileRows)
    );
}

/** Prompts of Llama-3.2-1B and Llama-3-8B; the last slice of a long one. */
export function prefillBench({ dtype, subgroups }: Variant): KernelCase[] {
  const small = { headSize: 64, kvHeads: 8, groupSize: 4, dtype, seed: 1 };
  const large = { headSize: 128, kvHeads: 8, groupSize: 4, dtype, seed: 2 };
  const prompts = (count: number, rows: number, past = 0) =>
    Array.from({ length: count }, () => ({ rows, past }));
  return [
    prefillCase({ ...small, sequences: prompts(1, 512) }, subgroups, true, TILE_ROWS, 64),
    prefillCase({ ...small, sequences: prompts(8, 512) }, subgroups, true, TILE_ROWS, 64),
    prefillCase({ ...small, sequences: prompts(1, 2048, 2048) }, subgroups, true, TILE_ROWS, 4),
    prefillCase({ ...small, sequences: prompts(1, 2048, 2048) }, subgroups, false, TILE_ROWS, 4),
    prefillCase({ ...large, sequences: prompts(1, 2048, 2048) }, subgroups, true, TILE_ROWS, 4),
  ];
}
