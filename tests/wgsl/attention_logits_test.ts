// What attentionDecode and attentionReduce write besides: scores and the logarithms of their sums.

import { assert, assertEquals } from "@std/assert";
import { attentionDecode } from "../../wgsl/attention_decode.ts";
import { attentionReduce } from "../../wgsl/attention_reduce.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { runKernel } from "../harness/run_kernel.ts";
import { partialAttention, score } from "../oracles/attention.ts";
import { decodeCall } from "./attention_decode_cases.ts";
import {
  makeScene,
  POISON,
  poisoned,
  queryHeads,
  type Scene,
  sceneData,
  sceneParameters,
  type SceneSetup,
  sceneView,
} from "./attention_scene.ts";

const SEQUENCES = [{ rows: 1, past: 130 }, { rows: 2, past: 61 }, { rows: 1, past: 40, done: true }, {
  rows: 1,
  past: 1,
}];
// The last sequence sees nothing at all.
const BLIND = [{ rows: 1, past: 33 }, { rows: 1, past: 70, done: true, position: 0 }];

const SCENES: readonly [Omit<SceneSetup, "dtype">, split: number][] = [
  [{ headSize: 32, kvHeads: 2, groupSize: 4, sequences: SEQUENCES, ragged: 30, shuffled: true, seed: 1 }, 64],
  // More heads of a group than go through workgroup memory together; an arena of some heads.
  [
    { headSize: 8, kvHeads: 3, groupSize: 4, sequences: SEQUENCES, firstHead: 1, shuffled: true, seed: 2 },
    32,
  ],
  [{ headSize: 52, kvHeads: 1, groupSize: 3, sequences: BLIND, seed: 3 }, 64],
];

/** Whole outputs of both kernels over a scene, with or without what they write besides. */
async function attend(scene: Scene, split: number, besides: boolean) {
  const gpu = await sharedGpu();
  const { dtype, headSize, groupSize } = scene.setup;
  const splits = Math.ceil(scene.longest / split) + 1;
  const logitStride = scene.longest + 3;
  const call = decodeCall(scene, split, splits);
  const first = await runKernel(
    gpu,
    attentionDecode({ dtype, headSize, groupSize, split, logits: besides }),
    { ...call.parameters, logitStride },
    { ...call.data(), logits: poisoned(scene.rows.length * scene.heads * logitStride) },
  );
  const outStride = scene.heads * headSize;
  const second = await runKernel(
    gpu,
    attentionReduce({ headSize, logSumExp: besides }),
    { ...sceneParameters(scene), rows: scene.rows.length, splits, split, outStride },
    {
      ...sceneData(scene),
      partials: new Float32Array(first.outputs.partials),
      statistics: new Float32Array(first.outputs.statistics),
      out: poisoned(scene.rows.length * outStride),
      logSumExps: poisoned(scene.rows.length * scene.heads),
    },
  );
  return { logitStride, ...first.outputs, ...second.outputs } as
    & { readonly logitStride: number }
    & Readonly<Record<"partials" | "statistics" | "logits" | "out" | "logSumExps", ArrayBuffer>>;
}

const MASKED = Math.fround(-3.4e38);

for (const dtype of ["f32", "f16"] as const) {
  Deno.test({
    name: `attentionDecode() writes logits and attentionReduce() their logSumExps (${dtype})`,
    // The device is shared by all tests and outlives them.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      for (const [setup, split] of SCENES) {
        const scene = makeScene({ ...setup, dtype });
        const run = await attend(scene, split, true);
        const plain = await attend(scene, split, false);
        for (const name of ["partials", "statistics", "out"] as const) {
          assertEquals(new Uint32Array(run[name]), new Uint32Array(plain[name]), `${name} differs`);
        }

        const logits = new Float32Array(run.logits);
        const logSumExps = new Float32Array(run.logSumExps);
        const view = sceneView(scene, sceneData(scene));
        const heads = new Set(queryHeads(scene));
        let masked = 0;
        scene.rows.forEach(({ sequence, position }, r) => {
          for (let head = 0; head < scene.heads; head++) {
            const slots = heads.has(head) ? view.slots(sequence, Math.floor(head / setup.groupSize)) : [];
            const query = view.query(r, head);
            for (let slot = 0; slot < run.logitStride; slot++) {
              const found = logits[(r * scene.heads + head) * run.logitStride + slot];
              const what = `logit of row ${r}, head ${head}, slot ${slot}`;
              if (slot >= slots.length) assertEquals(found, POISON, what);
              else if (slots[slot].position > position) assertEquals(found, MASKED, what), masked++;
              else {
                const want = score(query, slots[slot].key, scene.scale);
                assert(Math.abs(found - want) < 1e-5, `${what} is ${found}, expected ${want}`);
              }
            }
            if (!heads.has(head)) continue;
            const { maximum, sum } = partialAttention(query, position, slots, scene.scale);
            const found = logSumExps[r * scene.heads + head];
            if (sum === 0) assertEquals(found, MASKED);
            else {
              const want = maximum + Math.log(sum);
              assert(
                Math.abs(found - want) < 1e-5,
                `logSumExp of row ${r}, head ${head} is ${found}, not ${want}`,
              );
            }
          }
        });
        assert(masked > 0, "no slot was masked");
      }
    },
  });
}
