// Many short generations of every kind, with the byte accounting checked after each and memory noted.

import { generate, type GenerateOptions, session } from "../../lib/generate/mod.ts";
import { GpuMemoryError } from "../../lib/gpu/mod.ts";
import type { Model } from "../../lib/models/mod.ts";

/** Memory ceiling of the device that soaks: room for every generation but the ones that must be refused. */
export const CEILING: number = 48 * 2 ** 20;

/** New tokens of a generation. */
const TOKENS = 8;

const PROMPTS = [
  "When Mary",
  "The moor was dark, and the wind",
  "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness",
  "He",
];

/** A generation: resolves with the tokens it made. */
type Generation = (model: Model, index: number) => Promise<number>;

const GREEDY: GenerateOptions = { temperature: 0, maxTokens: TOKENS, ignoreEos: true };

/** One after the other, round and round. */
const KINDS: Record<string, Generation> = {
  greedy: async (model, i) => (await generate(model, PROMPTS[i % PROMPTS.length], GREEDY).record).ids.length,
  sampled: async (model, i) => {
    const options = { ...GREEDY, temperature: 1, topP: 0.9, topK: 40, seed: i, logprobs: 2 };
    return (await generate(model, PROMPTS[i % PROMPTS.length], options).record).ids.length;
  },
  edited: async (model, i) => {
    const options = { ...GREEDY, temperature: 0.7, seed: i, repetitionPenalty: 1.2, logitBias: { 14: -2 } };
    return (await generate(model, PROMPTS[i % PROMPTS.length], options).record).ids.length;
  },
  watched: async (model, i) => {
    let tokens = 0;
    for await (const { ids } of generate(model, PROMPTS[i % PROMPTS.length], GREEDY)) tokens += ids.length;
    return tokens;
  },
  batch: async (model, i) => {
    const prompts = PROMPTS.slice(0, 2 + i % 3);
    const records = await generate(model, prompts, GREEDY).record;
    return Math.max(...records.map(({ ids }) => ids.length));
  },
  session: async (model, i) => {
    using turns = session(model);
    const half = { ...GREEDY, maxTokens: TOKENS / 2 };
    const first = await turns.generate(PROMPTS[i % PROMPTS.length], half).record;
    using fork = await turns.fork();
    const second = await (i % 2 ? turns : fork).generate(" and", half).record;
    return first.ids.length + second.ids.length;
  },
  aborted: async (model, i) => {
    const abort = new AbortController();
    const options = { ...GREEDY, maxTokens: 200, runAhead: 4, signal: abort.signal };
    let tokens = 0;
    for await (const { ids } of generate(model, PROMPTS[i % PROMPTS.length], options)) {
      if ((tokens += ids.length) >= TOKENS) abort.abort();
    }
    return Math.min(tokens, TOKENS);
  },
  refused: async (model, i) => {
    const many = new Array<string>(60).fill(PROMPTS[0]);
    const run = generate(model, many, { ...GREEDY, maxTokens: 1800, logprobs: 1 });
    const error: unknown = await run.record.then(() => undefined, (reason) => reason);
    if (!(error instanceof GpuMemoryError)) {
      throw new Error("A batch over the memory ceiling was not refused", { cause: error });
    }
    return await KINDS.greedy(model, i);
  },
};

/** What {@linkcode soak} is told and tells. */
export interface SoakOptions {
  /** How many generations. */
  readonly generations: number;
  /** Told after each. */
  readonly onGeneration?: (index: number) => void;
}

/**
 * Generates again and again on a model that is alone on its device.
 *
 * @throws {Error} when a generation is short, or leaves more or less than the weights' bytes.
 */
export async function soak(model: Model, { generations, onGeneration }: SoakOptions): Promise<void> {
  const { memory } = model.store!.gpu;
  const weights = model.store!.bytes;
  const kinds = Object.entries(KINDS);
  for (let i = 0; i < generations; i++) {
    const [name, generation] = kinds[i % kinds.length];
    const tokens = await generation(model, Math.floor(i / kinds.length));
    if (tokens !== TOKENS) throw new Error(`Generation ${i} (${name}) made ${tokens} tokens, not ${TOKENS}`);
    if (memory.bytes !== weights) {
      throw new Error(
        `Generation ${i} (${name}) left ${memory.bytes} bytes, the weights have ${weights}: ` +
          JSON.stringify(memory.holders()),
      );
    }
    onGeneration?.(i);
  }
}

/** Slope of the least-squares line through values at 0, 1, 2 … */
export function slope(values: readonly number[]): number {
  const n = values.length;
  const mean = (n - 1) / 2;
  const average = values.reduce((a, b) => a + b, 0) / n;
  let products = 0;
  let squares = 0;
  values.forEach((value, i) => {
    products += (i - mean) * (value - average);
    squares += (i - mean) ** 2;
  });
  return products / squares;
}
