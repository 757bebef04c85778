// Cases of the sampling family whose outputs are known to the bit or to a rounding: greedy samples, counts, sums.

import { type KernelCase, randomArray, type Variant } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import {
  oracleDraw,
  oracleEdits,
  oracleKept,
  oracleLogits,
  oracleLogSumExp,
  oracleOrder,
  oracleScaled,
  type OracleSettings,
} from "../oracles/sampling.ts";
import { logProbabilities } from "../../wgsl/log_probabilities.ts";
import { sample } from "../../wgsl/sample.ts";
import { score } from "../../wgsl/score.ts";
import { NONE, SAMPLE_WORDS } from "../../wgsl/tables.ts";
import { sampleData, type SampledSequence, seedOf, sequenceIndex, settingsOf } from "./sampling_call.ts";

const RING = 4;

/** Logits about as a model gives them: a sum of uniform numbers, most of them near 0. */
export function modelLogits(length: number, seed: number, scale = 3): Float32Array {
  const [a, b, c] = [0, 1, 2].map((part) => randomArray(length, 3 * seed + part, scale));
  return a.map((value, i) => value + b[i] + c[i]);
}

function sampleCase(
  variant: Variant,
  rows: number,
  vocab: number,
  settings: Partial<OracleSettings>,
  edits: boolean,
): KernelCase {
  const { subgroups } = variant;
  const data = () => {
    // The rows share their logits, so that the oracle sorts once. A few tokens stand out, as a model's do.
    const logits = modelLogits(vocab, 7).map((z, i) => i % 4096 === 99 ? z + 12 : z);
    const bias = edits ? new Float32Array(vocab) : undefined;
    const counts = edits ? Uint32Array.from({ length: vocab }, (_, i) => i % 97 ? 0 : 1 + i % 3) : undefined;
    return Array.from({ length: rows }, (_, i): SampledSequence => ({
      logits,
      bias,
      counts,
      settings,
      seed: { seedLow: i + 1 },
      generated: i % 9,
    }));
  };
  const { parameters } = sampleData(data().slice(0, 1), { subgroups, edits, ring: RING });
  return {
    family: "sample",
    name: `rows ${rows}, vocab ${vocab}${edits ? ", edits" : ""}, ${JSON.stringify(settings)}`,
    kernel: sample({ subgroups, edits }),
    parameters: { ...parameters, rows },
    data: () => sampleData(data(), { subgroups, edits, ring: RING }).data,
    expected: (bindings): Record<string, Uint32Array> => {
      const sequences = data();
      const own = settingsOf(sequences[0]);
      const raw = oracleLogits(sequences[0].logits);
      const z = edits ? oracleEdits(raw, sequences[0].bias!, sequences[0].counts!, own) : raw;
      const order = oracleOrder(z);
      const scaled = oracleScaled(z, own.temperature || 1);
      const kept = order.subarray(0, own.temperature ? oracleKept(scaled, order, own).least : 1);
      const samples = (bindings.samples as Uint32Array).slice();
      sequences.forEach((sequence, i) => {
        const { token } = oracleDraw(scaled, seedOf(sequence), kept);
        const entry = sequenceIndex(rows, i) * RING + sequence.generated! % RING;
        samples.set([token, 0, 0, 0], entry * SAMPLE_WORDS);
      });
      return { samples };
    },
    tolerance: 0,
    work: { flops: rows * vocab, bytes: rows * vocab * (edits ? 12 : 4) },
  };
}

function scoreCase(
  { subgroups }: Variant,
  rows: number,
  vocab: number,
  scale: number,
  checked = rows,
): KernelCase {
  return {
    family: "score",
    name: `rows ${rows}, vocab ${vocab}, scale ${scale}`,
    kernel: score({ subgroups }),
    parameters: { rows, vocab },
    data: () => ({
      logits: modelLogits(rows * vocab, rows + vocab, scale),
      targets: Uint32Array.from({ length: rows }, (_, i) => i % 5 === 3 ? NONE : (i * 7919) % vocab),
      nll: new Float32Array(rows).fill(NaN),
    }),
    expected: ({ logits, targets }): Record<string, Float64Array> => ({
      nll: Float64Array.from({ length: checked }, (_, i) => {
        const target = targets[i];
        if (target === NONE) return 0;
        const row = oracleLogits((logits as Float32Array).subarray(i * vocab, (i + 1) * vocab));
        return oracleLogSumExp(row) - row[target];
      }),
    }),
    // Of values up to 20: 1e-5 at the most.
    tolerance: 5e-7,
    work: { flops: 3 * rows * vocab, bytes: 4 * rows * vocab },
  };
}

function logProbabilitiesCase(
  { subgroups }: Variant,
  rows: number,
  vocab: number,
  count: number,
): KernelCase {
  return {
    family: "logProbabilities",
    name: `rows ${rows}, vocab ${vocab}, count ${count}`,
    kernel: logProbabilities({ subgroups }),
    parameters: { rows, vocab, ring: RING, count },
    data: (): Record<string, HostArray> => {
      const sequences = Array.from({ length: rows }, (_, i): SampledSequence => ({
        logits: modelLogits(vocab, i),
      }));
      const { logits, logitRows, rowTable, states } = sampleData(sequences, { subgroups }).data;
      const top = new Uint32Array(Math.max((rows + 1) * RING * count * 2, 2));
      return { logits, logitRows, rowTable, states, logSumExps: new Float32Array(rows).fill(NaN), top };
    },
    // The top tokens have tests of their own.
    expected: ({ logits }): Record<string, Float64Array> => ({
      logSumExps: Float64Array.from(
        { length: rows },
        (_, i) =>
          oracleLogSumExp(oracleLogits((logits as Float32Array).subarray(i * vocab, (i + 1) * vocab))),
      ),
    }),
    tolerance: 5e-7,
    work: { flops: 3 * rows * vocab, bytes: 4 * rows * vocab },
  };
}

/** Correctness cases of a variant; no kernel of the family depends on the storage type. */
export function cases(variant: Variant): KernelCase[] {
  return [
    ...[1, 2, 255, 257, 4097].flatMap((vocab) => [
      sampleCase(variant, 3, vocab, { temperature: 0 }, false),
      sampleCase(variant, 2, vocab, { temperature: 0, repetitionPenalty: 1.5, presencePenalty: 0.5 }, true),
      scoreCase(variant, 7, vocab, 1),
      scoreCase(variant, 2, vocab, 5),
      logProbabilitiesCase(variant, 3, vocab, 0),
      logProbabilitiesCase(variant, 2, vocab, 5),
    ]),
    sampleCase(variant, 1, 128256, { temperature: 0 }, false),
    scoreCase(variant, 2, 128256, 0.01),
    scoreCase(variant, 2, 128256, 2),
    logProbabilitiesCase(variant, 1, 128256, 20),
  ];
}

/** Large shapes of real models, for a GPU. */
export function bench(variant: Variant): KernelCase[] {
  const vocab = 128256;
  return [
    ...[1, 32].flatMap((rows) => [
      sampleCase(variant, rows, vocab, { temperature: 0 }, false),
      sampleCase(variant, rows, vocab, { temperature: 0, repetitionPenalty: 1.1 }, true),
      sampleCase(variant, rows, vocab, { temperature: 1 }, false),
      sampleCase(variant, rows, vocab, { temperature: 0.8, topK: 50, topP: 0.9 }, false),
      sampleCase(variant, rows, vocab, { temperature: 0.6, topP: 0.9 }, false),
      sampleCase(variant, rows, vocab, { temperature: 2, topP: 0.95 }, false),
      logProbabilitiesCase(variant, rows, vocab, 0),
      logProbabilitiesCase(variant, rows, vocab, 20),
    ]),
    scoreCase(variant, 512, vocab, 1, 8),
  ];
}
