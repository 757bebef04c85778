// All cases of the sampling family, and the top log-probabilities and scores at their edges.

import { assert, assertEquals } from "@std/assert";
import { checkCase, randomArray, sharedGpu, VARIANTS } from "../harness/kernel_case.ts";
import { runKernel } from "../harness/run_kernel.ts";
import { oracleLogits, oracleLogSumExp, oracleOrder } from "../oracles/sampling.ts";
import { logProbabilities } from "../../wgsl/log_probabilities.ts";
import { score } from "../../wgsl/score.ts";
import { NONE } from "../../wgsl/tables.ts";
import { cases, modelLogits } from "./sampling_cases.ts";
import { sampleData, type SampledSequence, sequenceIndex } from "./sampling_call.ts";

const options = { sanitizeOps: false, sanitizeResources: false };
const LOWEST = -3.4028234663852886e38;

for (const variant of VARIANTS.filter(({ dtype }) => dtype === "f32")) {
  const { subgroups } = variant;
  const how = subgroups ? "with subgroups" : "without subgroups";
  const all = cases(variant);
  for (const family of new Set(all.map((test) => test.family))) {
    Deno.test({
      name: `${family}() agrees with the f64 oracle, ${how}`,
      ...options,
      fn: async () => {
        const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
        for (const test of all.filter((test) => test.family === family)) await checkCase(gpu, test);
      },
    });
  }

  Deno.test({
    name: `logProbabilities() lists the likeliest tokens in order, ${how}`,
    ...options,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      const kernel = logProbabilities({ subgroups });
      const check = async (sequences: SampledSequence[], count: number, ring: number): Promise<void> => {
        const rows = sequences.length;
        const vocab = sequences[0].logits.length;
        const { logits, logitRows, rowTable, states } = sampleData(sequences, { subgroups, ring }).data;
        const poison = 0x7fc0dead;
        const data = {
          logits,
          logitRows,
          rowTable,
          states,
          logSumExps: new Float32Array(rows).fill(7777),
          top: new Uint32Array((rows + 1) * ring * count * 2).fill(poison),
        };
        const { outputs } = await runKernel(gpu, kernel, { rows, vocab, ring, count }, data);
        const sums = new Float32Array(outputs.logSumExps);
        const words = new Uint32Array(outputs.top);
        const floats = new Float32Array(outputs.top);
        const written = new Set<number>();
        sequences.forEach((sequence, i) => {
          if (sequence.done) return assertEquals(sums[i], 7777);
          const z = oracleLogits(sequence.logits);
          const logSumExp = oracleLogSumExp(z);
          assert(Math.abs(sums[i] - logSumExp) <= 1e-5, `log-sum-exp ${sums[i]}, expected ${logSumExp}`);
          const order = oracleOrder(z);
          const entry = sequenceIndex(rows, i) * ring + (sequence.generated ?? 0) % ring;
          for (let j = 0; j < count; j++) {
            const at = 2 * (entry * count + j);
            written.add(at).add(at + 1);
            assertEquals(words[at], j < vocab ? order[j] : NONE, `vocab ${vocab}, row ${i}, place ${j}`);
            const wanted = j < vocab ? Math.max(z[order[j]] - logSumExp, LOWEST) : LOWEST;
            const error = wanted === LOWEST ? floats[at + 1] - LOWEST : Math.abs(floats[at + 1] - wanted);
            assert(error <= 1e-5, `log-probability ${floats[at + 1]}, expected ${wanted}`);
          }
        });
        words.forEach((word, at) => assert(written.has(at) || word === poison, `top word ${at} was written`));
      };
      for (const vocab of [1, 2, 63, 256, 257, 4097]) {
        for (const [count, ring] of [[1, 1], [5, 3], [64, 2]]) {
          await check(
            [
              { logits: modelLogits(vocab, vocab), generated: 0 },
              { logits: modelLogits(vocab, vocab + 1), generated: 7, done: true },
              { logits: modelLogits(vocab, vocab + 2), generated: 4 },
              { logits: modelLogits(vocab, 5).map(Math.round), generated: 2 },
              { logits: new Float32Array(vocab).fill(3), generated: 1 },
              {
                logits: modelLogits(vocab, 6, 20).map((z, i) =>
                  i % 3 === 2 ? -Infinity : i % 7 === 1 ? NaN : z
                ),
              },
              // The largest all belong to one thread.
              { logits: randomArray(vocab, 8).map((z, i) => i % 256 === 255 ? 10 + z : z) },
            ],
            count,
            ring,
          );
        }
      }
      await check(
        [{ logits: modelLogits(128256, 9) }, { logits: new Float32Array(128256).fill(-0.1) }],
        20,
        1,
      );
    },
  });

  Deno.test({
    name: `score() is exact to 1e-5 at a vocabulary of 128256, also far from 0, ${how}`,
    ...options,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      const vocab = 128256;
      const targets = Uint32Array.of(5, 128255, NONE, 17, 0, 1, 2);
      const logits = new Float32Array(targets.length * vocab);
      const rows = [
        modelLogits(vocab, 1, 4),
        modelLogits(vocab, 2, 0.1),
        modelLogits(vocab, 3).fill(NaN),
        // One likely token: the result is near 0.
        modelLogits(vocab, 4, 1).map((z, i) => i === 17 ? 20 : z),
        new Float32Array(vocab).fill(0.7),
        modelLogits(vocab, 5, 1).map((z) => Math.fround(1000 + z)),
        modelLogits(vocab, 6, 1).map((z, i) => i % 2 ? z : i % 4 ? -Infinity : -80 + z),
      ];
      rows[6][2] = 0.25;
      rows.forEach((row, i) => logits.set(row, i * vocab));
      const nll = new Float32Array(targets.length + 1).fill(7777);
      const { outputs } = await runKernel(gpu, score({ subgroups }), { rows: targets.length, vocab }, {
        logits,
        targets,
        nll,
      });
      const got = new Float32Array(outputs.nll);
      assertEquals(got[targets.length], 7777);
      targets.forEach((target, i) => {
        const z = oracleLogits(rows[i]);
        const wanted = target === NONE ? 0 : oracleLogSumExp(z) - z[target];
        assert(Math.abs(got[i] - wanted) <= 1e-5, `row ${i}: ${got[i]}, expected ${wanted}`);
      });
    },
  });

  Deno.test({
    name: `score() gives 3.4e38 for a target that cannot come, ${how}`,
    ...options,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      const { outputs } = await runKernel(gpu, score({ subgroups }), { rows: 2, vocab: 3 }, {
        logits: Float32Array.of(1, -Infinity, 2, 9, NaN, -9),
        targets: Uint32Array.of(1, 1),
        nll: new Float32Array(2),
      });
      assertEquals([...new Float32Array(outputs.nll)], [-LOWEST, -LOWEST]);
    },
  });
}
