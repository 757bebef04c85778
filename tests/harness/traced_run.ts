// Runs a model greedily as `generate` does and looks into its cache on the way: what a record does not tell.

import { createRecorder, readBuffer } from "../../lib/gpu/mod.ts";
import { createEngine, type Engine } from "../../lib/generate/engine.ts";
import { generateSpec } from "../../lib/generate/generate.ts";
import { gpuOf } from "../../lib/generate/gpu_of.ts";
import { resolveOptions } from "../../lib/generate/options.ts";
import { prefill } from "../../lib/generate/prefill.ts";
import { writeSampling } from "../../lib/generate/sampling_tables.ts";
import { unpackSamples, unpackStates } from "../../lib/generate/tables.ts";
import type { Model } from "../../lib/models/mod.ts";
import { arenaName } from "../../lib/ops/mod.ts";
import { EXTENT_WORDS, NONE } from "../../wgsl/tables.ts";

/** Positions of a sequence's tokens in the cache, by layer and KV head, ascending. */
export type Kept = number[][][];

/** What a run left of one sequence. */
export interface TracedSequence {
  /** Greedy tokens, `maxTokens` of them. */
  readonly ids: number[];
  /** Their log-probabilities. */
  readonly logprobs: number[];
  /** What was kept after the prompt, and then after every submit. */
  readonly history: Kept[];
  /** Keys and values by layer and KV head, after the prompt and in the end, when asked for. */
  readonly keyValues: KeptKeyValues[][][];
  /** Live tokens by layer in the end, as the cache counts them. */
  readonly tokens: number[];
}

/** Choices of {@linkcode tracedRun}. */
export interface TracedRunOptions {
  /** New tokens of every sequence. */
  readonly maxTokens: number;
  /** Decode steps of a submit. Default: all. */
  readonly steps?: number;
  /** Whether keys and values are read. */
  readonly keyValues?: boolean;
}

/** Generates from several prompts. */
export async function tracedRun(
  model: Model,
  prompts: readonly (readonly number[])[],
  { maxTokens, steps = 64, keyValues = false }: TracedRunOptions,
): Promise<TracedSequence[]> {
  const gpu = gpuOf(model);
  const options = resolveOptions(model, { temperature: 0, logprobs: 1, maxTokens, ignoreEos: true });
  const turns = prompts.map((ids) => ({ tokens: ids.length, maxTokens, position: 0 }));
  const engine = await createEngine(gpu, generateSpec(model, turns, options));
  const staging = await engine.createSampleStaging();
  try {
    writeSampling(engine, options, prompts.map(() => ({ position: 0, remaining: maxTokens })), prompts);
    const out = prompts.map((): TracedSequence => ({
      ids: [],
      logprobs: [],
      history: [],
      keyValues: [],
      tokens: [],
    }));
    const look = async () => {
      const recorder = createRecorder(gpu);
      engine.copySamples(recorder, staging);
      gpu.device.queue.submit([recorder.finish()]);
      const { states, samples, top } = engine.splitSamples(await staging.read());
      const progress = unpackStates(states, prompts.length);
      for (const [sequence, { ids, logprobs, history }] of out.entries()) {
        const { purpose } = engine.spec;
        const ring = purpose.type === "sample" ? purpose.sampling.ring : 0;
        const layout = { sequence, ring, topCount: 1 };
        for (const sample of unpackSamples(samples, top, layout, ids.length, progress[sequence].generated)) {
          ids.push(sample.id);
          logprobs.push(sample.logprob);
        }
        history.push(await engine.cache.positions(sequence));
      }
    };
    const feeds = prompts.map((ids, sequence) => ({ sequence, ids, position: 0 }));
    await prefill(engine, feeds, turns, { record: () => {}, aborted: () => false });
    const readKeyValues = async () => {
      if (!keyValues) return;
      for (const [sequence, one] of out.entries()) one.keyValues.push(await keyValuesOf(engine, sequence));
    };
    await look();
    await readKeyValues();
    engine.beginDecode([...prompts.keys()]);
    const longest = Math.max(...prompts.map(({ length }) => length));
    for (let done = 1; done < maxTokens;) {
      const count = Math.min(steps, maxTokens - done);
      done += count;
      gpu.device.queue.submit([engine.decode(count, longest + done - 1)]);
      await look();
    }
    await readKeyValues();
    const tokens = await engine.cache.tokens();
    return out.map((one, sequence) => ({ ...one, tokens: tokens.map((layer) => layer[sequence].live) }));
  } finally {
    staging.release();
    engine.release();
  }
}

/** Keys and values that one layer keeps of one KV head, in the order of positions: [tokens, headSize]. */
export interface KeptKeyValues {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

/** What a cache in f32 with one arena a layer keeps of a sequence, by layer and KV head. */
async function keyValuesOf({ gpu, cache, spec }: Engine, sequence: number): Promise<KeptKeyValues[][]> {
  const { layout, resources } = cache;
  const content = async (name: string) => {
    const buffer = resources.get(name)!;
    return await readBuffer(gpu, buffer, 0, buffer.size);
  };
  const extents = new Uint32Array(await content("extents"));
  const positions = new Uint32Array(await content("slotPositions"));
  const { length: sequences } = spec.sizes.capacities;
  const kept: KeptKeyValues[][] = [];
  for (const [layer, { request }] of layout.layers.entries()) {
    const { headSize } = request.sizes;
    const [keys, values] = await Promise.all(
      (["keys", "values"] as const).map(async (part) =>
        new Float32Array(await content(arenaName(`kv.${layer}`, part, 0)))
      ),
    );
    kept.push(Array.from({ length: layout.kvHeads }, (_, head): KeptKeyValues => {
      const at = ((layer * sequences + sequence) * layout.kvHeads + head) * EXTENT_WORDS;
      const [base, , , length, first] = extents.subarray(at, at + EXTENT_WORDS);
      const slots = [...Array(length).keys()].filter((slot) => positions[first + slot] !== NONE)
        .sort((a, b) => positions[first + a] - positions[first + b]);
      const pick = (all: Float32Array) =>
        Float32Array.from(
          slots.flatMap((slot) => [...all.subarray((base + slot) * headSize, (base + slot + 1) * headSize)]),
        );
      return { keys: pick(keys), values: pick(values) };
    }));
  }
  return kept;
}
