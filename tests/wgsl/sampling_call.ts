// One call of the sampling kernel over made-up sequences, in tables whose rows and sequences are in another order than
// the logit rows and hold more than these, and with a check that nothing is written beside what should be.

import { assert } from "@std/assert";
import type { Gpu } from "../../lib/gpu/mod.ts";
import { sample } from "../../wgsl/sample.ts";
import { ROW_WORDS, SAMPLE_WORDS, SAMPLING_WORDS, STATE_WORDS } from "../../wgsl/tables.ts";
import type { OracleSeed, OracleSettings } from "../oracles/sampling.ts";
import { type HostArray, runKernel } from "../harness/run_kernel.ts";

/** One sequence of a call. */
export interface SampledSequence {
  /** Its logits. */
  readonly logits: Float32Array;
  /** Sampling settings that are not the neutral ones; temperature 1 unless given. */
  readonly settings?: Partial<OracleSettings>;
  /** Seed; 0 unless given. `position` is the one the new token takes, 1 unless given. */
  readonly seed?: Partial<OracleSeed>;
  /** Whether it is done already. */
  readonly done?: boolean;
  /** Tokens sampled before; 0 unless given. */
  readonly generated?: number;
  /** Tokens still allowed; 100 unless given. */
  readonly remaining?: number;
  /** Stop ids. */
  readonly stopIds?: readonly number[];
  /** Forced tokens. */
  readonly forced?: readonly number[];
  /** Bias of each token, with edits. */
  readonly bias?: Float32Array;
  /** Counts of each token, with edits. */
  readonly counts?: Uint32Array;
  /** Log-sum-exp given to the kernel. */
  readonly logSumExp?: number;
}

/** What the kernel wrote for a sequence. */
export interface SampledToken {
  /** The sample's four words, the last two as floats. */
  readonly token: number;
  readonly stopped: number;
  readonly logProbability: number;
  readonly logSumExp: number;
  /** The first five words of the state. */
  readonly state: readonly number[];
  /** Counts after the call, with edits. */
  readonly counts?: Uint32Array;
}

/** Options of {@linkcode sampleAll}. */
export interface SampleAllOptions {
  /** Subgroup variant of the kernel. */
  readonly subgroups: boolean;
  /** Edits variant. */
  readonly edits?: boolean;
  /** Entries of a sequence in the ring; 4 unless given. */
  readonly ring?: number;
  /** Asks for log-probabilities. */
  readonly logprobs?: boolean;
  /** Another grid than the kernel's own. */
  readonly grid?: readonly [number, number, number];
}

/** Settings that change nothing, at temperature 1. */
export const NEUTRAL: OracleSettings = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
};

/** A sequence's settings with f32 values, as the kernel sees them. */
export function settingsOf(sequence: SampledSequence): OracleSettings {
  const settings = { ...NEUTRAL, ...sequence.settings };
  return Object.fromEntries(Object.entries(settings).map(([k, v]) => [k, Math.fround(v)])) as
    & OracleSettings
    & Record<string, number>;
}

/** A sequence's seed and position. */
export function seedOf(sequence: SampledSequence): OracleSeed {
  return { seedLow: 0, seedHigh: 0, position: 1, ...sequence.seed };
}

const POISON = 0x7fc0dead;

/** Data of the kernel's bindings for a call. */
export function sampleData(
  sequences: readonly SampledSequence[],
  options: SampleAllOptions,
): { parameters: Record<string, number>; data: Record<string, HostArray> } {
  const rows = sequences.length;
  const vocab = sequences[0].logits.length;
  const ring = options.ring ?? 4;
  const logits = new Float32Array(rows * vocab);
  const logitRows = new Uint32Array(rows);
  const rowTable = new Uint32Array(2 * rows * ROW_WORDS).fill(POISON);
  const states = new Uint32Array((rows + 1) * STATE_WORDS).fill(POISON);
  const settings = new Uint32Array((rows + 1) * SAMPLING_WORDS);
  const settingFloats = new Float32Array(settings.buffer);
  const stopIds: number[] = [POISON];
  const forced: number[] = [POISON];
  const logSumExps = new Float32Array(rows);
  const counts = new Uint32Array(options.edits ? (rows + 1) * vocab : 1);
  const bias = new Float32Array(options.edits ? (rows + 1) * vocab : 1);
  sequences.forEach((sequence, i) => {
    const s = sequenceIndex(rows, i);
    const own = settingsOf(sequence);
    const { seedLow, seedHigh, position } = seedOf(sequence);
    logits.set(sequence.logits, i * vocab);
    logitRows[i] = 2 * s - 1;
    rowTable.set([POISON, s, position - 1, POISON], logitRows[i] * ROW_WORDS);
    const { generated = 0, remaining = 100 } = sequence;
    states.set([sequence.done ? 1 : 0, position - 1, 77, generated, remaining], s * STATE_WORDS);
    settingFloats.set([
      own.temperature,
      own.topP,
      own.minP,
      own.repetitionPenalty,
      own.frequencyPenalty,
      own.presencePenalty,
    ], s * SAMPLING_WORDS);
    const stop = sequence.stopIds ?? [];
    const force = sequence.forced ?? [];
    settings.set(
      [own.topK, seedLow, seedHigh, stopIds.length, stop.length, forced.length, force.length],
      s * SAMPLING_WORDS + 6,
    );
    stopIds.push(...stop);
    forced.push(...force);
    logSumExps[i] = sequence.logSumExp ?? 0;
    if (options.edits && sequence.counts) counts.set(sequence.counts, s * vocab);
    if (options.edits && sequence.bias) bias.set(sequence.bias, s * vocab);
  });
  return {
    parameters: { rows, vocab, ring, logprobs: options.logprobs ? 1 : 0 },
    data: {
      logits,
      logitRows,
      rowTable,
      states,
      settings,
      stopIds: Uint32Array.from(stopIds),
      forced: Uint32Array.from(forced),
      samples: new Uint32Array((rows + 1) * ring * SAMPLE_WORDS).fill(POISON),
      logSumExps,
      ...(options.edits ? { counts, bias } : {}),
    },
  };
}

/** Index of logit row i's sequence in the tables: the other way round, and sequence 0 belongs to no row. */
export function sequenceIndex(rows: number, i: number): number {
  return rows - i;
}

/** Samples a token for each sequence and checks that nothing else was written. */
export async function sampleAll(
  gpu: Gpu,
  sequences: readonly SampledSequence[],
  options: SampleAllOptions,
): Promise<SampledToken[]> {
  const { subgroups, edits = false, ring = 4 } = options;
  const { parameters, data } = sampleData(sequences, options);
  const run = await runKernel(gpu, sample({ subgroups, edits }), parameters, data, { grid: options.grid });
  const samples = new Uint32Array(run.outputs.samples);
  const sampleFloats = new Float32Array(run.outputs.samples);
  const states = new Uint32Array(run.outputs.states);
  const counts = edits ? new Uint32Array(run.outputs.counts) : undefined;
  const { rows, vocab } = parameters;
  const wantedSamples = (data.samples as Uint32Array).slice();
  const wantedStates = (data.states as Uint32Array).slice();
  const wantedCounts = edits ? (data.counts as Uint32Array).slice() : undefined;
  const results = sequences.map((sequence, i) => {
    const s = sequenceIndex(rows, i);
    const at = (s * ring + (sequence.generated ?? 0) % ring) * SAMPLE_WORDS;
    const state = states.subarray(s * STATE_WORDS, s * STATE_WORDS + 5);
    if (!sequence.done) {
      const token = samples[at];
      wantedSamples.set(samples.subarray(at, at + SAMPLE_WORDS), at);
      wantedStates.set(state, s * STATE_WORDS);
      if (wantedCounts && samples[at + 1] !== 1) wantedCounts[s * vocab + token]++;
    }
    return {
      token: samples[at],
      stopped: samples[at + 1],
      logProbability: sampleFloats[at + 2],
      logSumExp: sampleFloats[at + 3],
      state: [...state],
      counts: counts?.slice(s * vocab, (s + 1) * vocab),
    };
  });
  assertSameWords(samples, wantedSamples, "samples");
  assertSameWords(states, wantedStates, "states");
  if (counts) assertSameWords(counts, wantedCounts!, "counts");
  return results;
}

function assertSameWords(got: Uint32Array, want: Uint32Array, name: string): void {
  const at = got.findIndex((word, i) => word !== want[i]);
  assert(
    at < 0,
    `${name}[${at}] is ${got[at]}, expected ${want[at]}: written beside its place or not at all`,
  );
}
