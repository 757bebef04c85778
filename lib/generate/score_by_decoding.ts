// Scoring a model that drops rows of a prompt: what is scored is decoded, token by token, as it would be generated.

import type { Turn } from "../graph/mod.ts";
import type { Model } from "../models/mod.ts";
import { RING } from "./decode_loop.ts";
import { createEngine, type Engine } from "./engine.ts";
import { generateSpec } from "./generate.ts";
import { gpuOf } from "./gpu_of.ts";
import { MAX_RUN_AHEAD, resolveOptions } from "./options.ts";
import { prefill } from "./prefill.ts";
import { writeSampling } from "./sampling_tables.ts";
import { unpackSamples } from "./tables.ts";

/** Scores continuations of contexts. */
export interface DecodingScorer {
  /** Negative log-likelihoods of `continuation`, each after the context and what of it comes before. */
  score(context: readonly number[], continuation: readonly number[]): Promise<number[]>;
  /** Frees what it holds. */
  release(): void;
}

/** Makes a scorer; contexts and continuations of the same lengths share plans and buffers. */
export function createDecodingScorer(model: Model): DecodingScorer {
  const options = resolveOptions(model, { temperature: 0, logprobs: 0, stopIds: [], repetitionPenalty: 1 });
  let engine: Engine | undefined;
  let made: Turn | undefined;
  const release = () => {
    engine?.release();
    engine = undefined;
  };
  const engineFor = async (turn: Turn): Promise<Engine> => {
    if (engine && made && made.tokens === turn.tokens && made.maxTokens === turn.maxTokens) return engine;
    release();
    made = turn;
    return engine = await createEngine(gpuOf(model), generateSpec(model, [turn], options));
  };
  return {
    release,
    async score(context, continuation): Promise<number[]> {
      const turn = { tokens: context.length, maxTokens: continuation.length, position: 0 };
      const current = await engineFor(turn);
      current.cache.reset();
      // One more than is scored, so that no sequence is done early.
      writeSampling(current, options, [{ position: 0, remaining: continuation.length + 1 }], [[...context]]);
      const nll: number[] = [];
      const staging = await current.createSampleStaging();
      try {
        for (let first = 0; first < continuation.length; first += MAX_RUN_AHEAD) {
          const chunk = continuation.slice(first, first + MAX_RUN_AHEAD);
          current.force(chunk, first + chunk.length);
          let steps = chunk.length;
          if (first === 0) {
            const feeds = [{ sequence: 0, ids: context, position: 0 }];
            await prefill(current, feeds, [turn], { record: () => {}, aborted: () => false });
            current.beginDecode([0]);
            steps--;
          }
          const commands = current.decode(steps, context.length + first + chunk.length, {
            record: (recorder) => current.copySamples(recorder, staging),
          });
          current.gpu.device.queue.submit([commands]);
          const { samples, top } = current.splitSamples(await staging.read());
          const layout = { sequence: 0, ring: RING, topCount: 0 };
          const taken = unpackSamples(samples, top, layout, first, first + chunk.length);
          nll.push(...taken.map(({ logprob }) => -logprob));
        }
      } finally {
        staging.release();
      }
      return nll;
    },
  };
}
