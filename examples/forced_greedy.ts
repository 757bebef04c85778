// Which tokens a model would choose after a prompt, one by one, if all before them were those of another text.

import type { Model, Turn } from "../mod.ts";
import { RING } from "../lib/generate/decode_loop.ts";
import { createEngine, type Engine } from "../lib/generate/engine.ts";
import { generateSpec } from "../lib/generate/generate.ts";
import { gpuOf } from "../lib/generate/gpu_of.ts";
import { MAX_RUN_AHEAD, resolveOptions } from "../lib/generate/options.ts";
import { prefill } from "../lib/generate/prefill.ts";
import { writeSampling } from "../lib/generate/sampling_tables.ts";
import { unpackSamples } from "../lib/generate/tables.ts";

/** A prompt and the tokens that follow it. */
export interface ForcedText {
  readonly prompt: readonly number[];
  readonly tokens: readonly number[];
}

/**
 * The likeliest token at the place of every one of `tokens`, after the prompt and the tokens before it: decoded as they would
 * be generated, with a cache that is pruned as the model's is. All texts must have the same lengths.
 */
export async function forcedGreedy(model: Model, texts: readonly ForcedText[]): Promise<number[][]> {
  const options = resolveOptions(model, { temperature: 0, logprobs: 1, stopIds: [], repetitionPenalty: 1 });
  const [{ prompt, tokens }] = texts;
  const turn: Turn = { tokens: prompt.length, maxTokens: tokens.length, position: 0 };
  const engine = await createEngine(gpuOf(model), generateSpec(model, [turn], options));
  try {
    const result: number[][] = [];
    for (const text of texts) {
      if (text.prompt.length !== prompt.length || text.tokens.length !== tokens.length) {
        throw new RangeError("All texts must have prompts of one length, and as many tokens after them");
      }
      engine.cache.reset();
      result.push(await likeliest(engine, turn, text));
    }
    return result;
  } finally {
    engine.release();
  }

  async function likeliest(current: Engine, turn: Turn, { prompt, tokens }: ForcedText): Promise<number[]> {
    // One more than is asked for, so that the sequence is not done early.
    writeSampling(current, options, [{ position: 0, remaining: tokens.length + 1 }], [[...prompt]]);
    const chosen: number[] = [];
    const staging = await current.createSampleStaging();
    try {
      for (let first = 0; first < tokens.length; first += MAX_RUN_AHEAD) {
        const chunk = tokens.slice(first, first + MAX_RUN_AHEAD);
        current.force(chunk, first + chunk.length);
        let steps = chunk.length;
        if (first === 0) {
          const feeds = [{ sequence: 0, ids: prompt, position: 0 }];
          await prefill(current, feeds, [turn], { record: () => {}, aborted: () => false });
          current.beginDecode([0]);
          steps--;
        }
        const commands = current.decode(steps, prompt.length + first + chunk.length, {
          record: (recorder) => current.copySamples(recorder, staging),
        });
        current.gpu.device.queue.submit([commands]);
        const { samples, top } = current.splitSamples(await staging.read());
        const layout = { sequence: 0, ring: RING, topCount: 1 };
        const taken = unpackSamples(samples, top, layout, first, first + chunk.length);
        chosen.push(...taken.map(({ top: [best] }) => best.id));
      }
    } finally {
      staging.release();
    }
    return chosen;
  }
}
