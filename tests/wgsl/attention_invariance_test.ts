// What a row's result must not depend on, to the bit.

import { assert, assertEquals } from "@std/assert";
import { attentionReduce } from "../../wgsl/attention_reduce.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { runKernel } from "../harness/run_kernel.ts";
import { attention } from "../oracles/attention.ts";
import { decodeCall } from "./attention_decode_cases.ts";
import { prefillCall } from "./attention_prefill_cases.ts";
import {
  type Extent,
  LAYER,
  makeScene,
  poisoned,
  queryHeads,
  type Row,
  type Scene,
  sceneData,
  sceneParameters,
  type SceneSetup,
  sceneView,
} from "./attention_scene.ts";

// The device is shared by all tests and outlives them.
const leaky = { sanitizeOps: false, sanitizeResources: false };

/** The words of each of a scene's rows as attentionPrefill gives them. */
async function prefillRows(
  scene: Scene,
  subgroups: boolean,
  ordered: boolean,
  tileRows: number,
): Promise<Uint32Array[]> {
  const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
  const { kernel, parameters, data } = prefillCall(scene, subgroups, ordered, tileRows);
  const { outputs } = await runKernel(gpu, kernel, parameters, data());
  return scene.rows.map((_, r) =>
    new Uint32Array(outputs.out).slice(r * parameters.outStride, (r + 1) * parameters.outStride)
  );
}

/** The words of each of a scene's rows as attentionDecode and attentionReduce give them. */
async function decodeRows(scene: Scene, split: number, spare: number): Promise<Uint32Array[]> {
  const gpu = await sharedGpu();
  const splits = Math.ceil(scene.longest / split) + spare;
  const first = decodeCall(scene, split, splits);
  const parts = await runKernel(gpu, first.kernel, first.parameters, first.data());
  const outStride = scene.heads * scene.setup.headSize;
  const { outputs } = await runKernel(
    gpu,
    attentionReduce({ headSize: scene.setup.headSize }),
    { ...sceneParameters(scene), rows: scene.rows.length, splits, split, outStride },
    {
      ...sceneData(scene),
      partials: new Float32Array(parts.outputs.partials),
      statistics: new Float32Array(parts.outputs.statistics),
      out: poisoned(scene.rows.length * outStride),
    },
  );
  return scene.rows.map((_, r) => new Uint32Array(outputs.out).slice(r * outStride, (r + 1) * outStride));
}

/** A scene with only some of its rows. */
function withRows(
  scene: Scene,
  chosen: readonly number[],
  rows: readonly Row[] = chosen.map((r) => scene.rows[r]),
): Scene {
  const { qStride } = scene;
  const all = scene.q();
  const q = new Float32Array(chosen.length * qStride);
  chosen.forEach((from, to) => q.set(all.subarray(from * qStride, (from + 1) * qStride), to * qStride));
  return { ...scene, rows, q: () => q };
}

/**
 * The step of a scene in which only the rows [first, end) of `sequence` come: those before are already in the cache,
 * those after are not yet.
 */
function slice(scene: Scene, sequence: number, first: number, end: number): Scene {
  const { kvHeads, sequences } = scene.setup;
  const own = scene.rows.map((_, r) => r).filter((r) => scene.rows[r].sequence === sequence).slice(
    first,
    end,
  );
  const from = (LAYER * sequences.length + sequence) * kvHeads;
  const extents: Extent[] = scene.extents.map((extent, i) =>
    i >= from && i < from + kvHeads
      ? { ...extent, start: extent.start + first, length: extent.start + end }
      : extent
  );
  const rows = own.map((r) => ({ ...scene.rows[r], index: scene.rows[r].index - first }));
  return {
    ...withRows(scene, own, rows),
    extents,
  };
}

const PREFILL: Omit<SceneSetup, "dtype"> = {
  headSize: 32,
  kvHeads: 2,
  groupSize: 2,
  ragged: 3,
  sequences: [{ rows: 3, past: 5 }, { rows: 79, past: 11 }, { rows: 9, past: 0 }],
  seed: 77,
};

for (const [dtype, subgroups] of [["f32", false], ["f16", true]] as const) {
  const label = `${dtype}, ${subgroups ? "with" : "without"} subgroups`;
  Deno.test({
    name:
      `attentionPrefill() gives a row the same bits whatever the tiles, the step and the other rows (${label})`,
    ...leaky,
    fn: async () => {
      for (const headSize of [32, 84]) {
        const scene = makeScene({ ...PREFILL, headSize, dtype });
        const want = await prefillRows(scene, subgroups, true, 64);
        for (
          const [ordered, tileRows] of headSize === 32
            ? [[true, 1], [true, 13], [false, 64]] as const
            : [[true, 13]] as const
        ) {
          assertEquals(
            await prefillRows(scene, subgroups, ordered, tileRows),
            want,
            `tiles of ${tileRows} differ`,
          );
        }
        const long = scene.rows.findIndex(({ sequence }) => sequence === 1);
        for (const [first, end] of [[0, 1], [0, 37], [37, 38], [38, 79]]) {
          const got = await prefillRows(slice(scene, 1, first, end), subgroups, true, 64);
          assertEquals(got, want.slice(long + first, long + end), `rows ${first} to ${end} as a step differ`);
        }
      }
    },
  });
}

const DECODE: Omit<SceneSetup, "dtype"> = {
  headSize: 32,
  kvHeads: 2,
  groupSize: 4,
  ragged: 30,
  sequences: [{ rows: 1, past: 40 }, { rows: 6, past: 190 }, { rows: 1, past: 0 }],
  seed: 78,
};

for (const dtype of ["f32", "f16"] as const) {
  Deno.test({
    name:
      `attentionDecode() and attentionReduce() give a row the same bits whatever the grid and the other rows (${dtype})`,
    ...leaky,
    fn: async () => {
      const scene = makeScene({ ...DECODE, dtype });
      const want = await decodeRows(scene, 64, 0);
      assertEquals(await decodeRows(scene, 64, 3), want, "more splits differ");
      for (let r = 0; r < scene.rows.length; r++) {
        assertEquals(await decodeRows(withRows(scene, [r]), 64, 0), [want[r]], `row ${r} alone differs`);
      }
      const long = scene.rows.findIndex(({ sequence }) => sequence === 1);
      for (let i = 0; i < 6; i++) {
        const got = await decodeRows(slice(scene, 1, i, i + 1), 64, 0);
        assertEquals(got, [want[long + i]], `row ${i} as a step differs`);
      }
    },
  });

  Deno.test({
    name: `attentionDecode() and attentionReduce() together agree with the f64 oracle (${dtype})`,
    ...leaky,
    fn: async () => {
      // The second scene has splits without a visible slot, the third rows that see nothing.
      const blind = [
        { rows: 130, past: 3 },
        { rows: 1, past: 0, done: true },
        { rows: 1, past: 70, done: true, position: 0 },
      ];
      const scenes = [
        makeScene({ ...DECODE, dtype }),
        makeScene({ ...DECODE, dtype, shuffled: true }),
        makeScene({ ...DECODE, dtype, ragged: 0, sequences: blind }),
      ];
      for (const scene of scenes) {
        const { headSize, groupSize } = scene.setup;
        const view = sceneView(scene, sceneData(scene));
        const got = await decodeRows(scene, 64, 1);
        scene.rows.forEach(({ sequence, position }, r) => {
          const out = new Float32Array(got[r].buffer);
          for (const head of queryHeads(scene)) {
            const slots = view.slots(sequence, Math.floor(head / groupSize));
            attention(view.query(r, head), position, slots, scene.scale).forEach((value, d) => {
              const found = out[head * headSize + d];
              assert(
                Math.abs(found - value) <= 1e-5,
                `row ${r}, head ${head}, component ${d} is ${found}, expected ${value}`,
              );
            });
          }
        });
      }
    },
  });
}
