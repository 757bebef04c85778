// What attentionPrefill puts out besides its rows in their order.

import { assert, assertEquals } from "@std/assert";
import { attentionPrefill } from "../../wgsl/attention_prefill.ts";
import { TILE_WORDS } from "../../wgsl/tables.ts";
import { sharedGpu, VARIANTS } from "../harness/kernel_case.ts";
import { runKernel } from "../harness/run_kernel.ts";
import { logSumExp } from "../oracles/attention.ts";
import { BLIND, MIXED, prefillCall } from "./attention_prefill_cases.ts";
import { encodeTiles, makeScene, poisoned, queryHeads, type Scene, sceneView } from "./attention_scene.ts";

// The device is shared by all tests and outlives them.
const leaky = { sanitizeOps: false, sanitizeResources: false };

const SCENES = [
  {
    headSize: 32,
    kvHeads: 3,
    groupSize: 2,
    ragged: 3,
    firstHead: 1,
    arenaHeads: 1,
    sequences: MIXED,
    seed: 5,
  },
  { headSize: 32, kvHeads: 1, groupSize: 1, sequences: BLIND, seed: 6 },
];

for (const { dtype, subgroups } of VARIANTS) {
  const label = `${dtype}, ${subgroups ? "with" : "without"} subgroups`;
  const scenes = (): Scene[] => SCENES.map((setup) => makeScene({ ...setup, dtype }));

  Deno.test({
    name: `attentionPrefill() gives the logs of sums that agree with the f64 oracle (${label})`,
    ...leaky,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      let blind = 0;
      for (const scene of scenes()) {
        const { sequences, groupSize } = scene.setup;
        const { kernel, parameters, data } = prefillCall(scene, subgroups, true, 13, true);
        const { outputs } = await runKernel(gpu, kernel, parameters, data());
        const got = new Float32Array(outputs.logSumExps);
        const view = sceneView(scene, data());
        const want = new Float32Array(got.length).fill(Infinity);
        for (const head of queryHeads(scene)) {
          const slots = sequences.map((_, s) => view.slots(s, Math.floor(head / groupSize)));
          scene.rows.forEach(({ sequence, position }, r) => {
            const sum = logSumExp(view.query(r, head), position, slots[sequence], scene.scale);
            if (sum === -Infinity) blind++;
            want[r * scene.heads + head] = Math.max(sum, -3.4e38);
          });
        }
        want.forEach((value, i) => {
          const error = value === got[i] ? 0 : Math.abs(got[i] - value);
          assert(error <= 1e-5, `row and head ${i}: ${got[i]}, expected ${value}`);
        });
        const without = prefillCall(scene, subgroups, true, 13);
        const plain = await runKernel(gpu, without.kernel, without.parameters, without.data());
        assertEquals(new Uint32Array(outputs.out), new Uint32Array(plain.outputs.out));
      }
      assertEquals(blind, 4);
    },
  });

  Deno.test({
    name: `attentionPrefill() puts each tile's rows where its target is (${label})`,
    ...leaky,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      const [scene] = scenes();
      const { kernel, parameters, data } = prefillCall(scene, subgroups, true, 13);
      const { outStride } = parameters;
      const usual = await runKernel(gpu, kernel, parameters, data());
      const usualOut = new Uint32Array(usual.outputs.out);
      // The tiles of every second one, the last first, with a row free between.
      const all = data().tiles;
      const tiles: number[] = [];
      const want: { from: number; to: number }[] = [];
      let target = 1;
      for (let t = all.length / TILE_WORDS - 1; t >= 0; t -= 2) {
        const [first, count, sequence] = all.subarray(t * TILE_WORDS);
        tiles.push(first, count, sequence, target);
        for (let i = 0; i < count; i++) want.push({ from: first + i, to: target + i });
        target += count + 1;
      }
      const moved = await runKernel(gpu, kernel, { ...parameters, tiles: tiles.length / TILE_WORDS }, {
        ...data(),
        tiles: Uint32Array.from(tiles),
        out: poisoned(target * outStride),
      });
      const expected = new Uint32Array(poisoned(target * outStride).buffer);
      for (const { from, to } of want) {
        expected.set(usualOut.subarray(from * outStride, (from + 1) * outStride), to * outStride);
      }
      assert(want.length > 20 && want.length < scene.rows.length);
      assertEquals(new Uint32Array(moved.outputs.out), expected);
    },
  });

  Deno.test({
    name: `attentionPrefill() gives rows that a map picks the same bits as among all rows (${label})`,
    ...leaky,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      for (const [index, scene] of scenes().entries()) {
        const { headSize } = scene.setup;
        // Few rows of a tile in some places, many in others, and not the last row of every sequence.
        const picked = scene.rows.map((_, r) => r).filter((r) => r % 3 === 1 || (r > 30 && r < 60));
        const rows = picked.map((r) => scene.rows[r]);
        for (const ordered of [true, false]) {
          const call = prefillCall(scene, subgroups, ordered, 13, true);
          const { outStride } = call.parameters;
          const all = await runKernel(gpu, call.kernel, call.parameters, call.data());
          const [allOut, allSums] = [
            new Uint32Array(all.outputs.out),
            new Uint32Array(all.outputs.logSumExps),
          ];

          // Numbers of rows stand behind others in the map, and a row is free before the outputs.
          const tiles = encodeTiles(rows, 13);
          for (let at = 0; at < tiles.length; at += TILE_WORDS) tiles[at] += 2, tiles[at + 3] += 1;
          const parameters = { ...call.parameters, tiles: tiles.length / TILE_WORDS };
          const data = () => ({
            ...call.data(),
            tiles,
            map: Uint32Array.from([0, 0, ...picked]),
            out: poisoned((rows.length + 1) * outStride),
          });
          // The map is a binding behind the sums, or in their place.
          const logSumExp = ordered;
          const mapped = attentionPrefill({ dtype, headSize, subgroups, ordered, logSumExp, mapped: true });
          const { outputs } = await runKernel(gpu, mapped, parameters, data());
          const out = new Uint32Array(poisoned((rows.length + 1) * outStride).buffer);
          const sums = new Uint32Array(poisoned(scene.rows.length * scene.heads).buffer);
          picked.forEach((from, to) => {
            out.set(allOut.subarray(from * outStride, (from + 1) * outStride), (to + 1) * outStride);
            const at = from * scene.heads;
            sums.set(allSums.subarray(at, at + scene.heads), at);
          });
          assertEquals(new Uint32Array(outputs.out), out);
          if (logSumExp) assertEquals(new Uint32Array(outputs.logSumExps), sums);
        }
        assert(index > 0 || (rows.length > 40 && rows.length < scene.rows.length));
      }
    },
  });
}
