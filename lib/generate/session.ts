// A session: one sequence whose cache is kept between calls.

import type { Turn } from "../graph/mod.ts";
import { coresOf } from "../layers/mod.ts";
import type { Model } from "../models/mod.ts";
import { decodeLoop, type DecodeResult } from "./decode_loop.ts";
import { createEngine, type Engine, type EngineSpec } from "./engine.ts";
import { cacheTokens, generateSpec, makeRecords, outputHooks } from "./generate.ts";
import { gpuOf } from "./gpu_of.ts";
import { type GenerateOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { createOutput } from "./output.ts";
import { prefill } from "./prefill.ts";
import {
  allowedTokens,
  encodePrompt,
  type EncodePromptOptions,
  positionLimit,
  type Prompt,
  requireCausal,
} from "./prompt.ts";
import { type GenerateRecord, type GenerateRun, type RunControl, startRun } from "./run.ts";
import { writeSampling } from "./sampling_tables.ts";

/** Options of {@linkcode session}. */
export interface SessionOptions {
  /** Slots of the cache to begin with; it grows when more are needed. Default: what the first call needs. */
  readonly cacheTokens?: number;
}

/** One sequence whose cache is kept between calls. Free it with `using` or `dispose`. */
export interface Session extends Disposable {
  /** All tokens so far: prompts and what was generated. A stop token is not among them. */
  readonly ids: readonly number[];
  /** Bytes of its cache. */
  readonly cacheBytes: number;
  /** Adds to the sequence without generating. A text gets BOS only at the beginning. */
  append(prompt: Prompt, options?: EncodePromptOptions): void;
  /**
   * Adds a prompt, if given, and generates. Calls run one after the other. When one fails, its prompt is not added;
   * one that is aborted while it is fed stays, and is fed with what comes next.
   *
   * @throws {RangeError} when an option or the prompt is out of range; the record rejects when both together are over the
   * context.
   */
  generate(prompt?: Prompt, options?: GenerateOptions): GenerateRun<GenerateRecord>;
  /** A second session that goes on from here by itself. */
  fork(): Promise<Session>;
  /** Frees the cache, when what is running has ended. */
  dispose(): void;
}

/**
 * Begins a session.
 *
 * @throws {RangeError} when `cacheTokens` is not a whole number from 1 to the model's context.
 */
export function session(model: Model, options: SessionOptions = {}): Session {
  requireCausal(model);
  const limit = positionLimit(model);
  const { cacheTokens = 1 } = options;
  if (!Number.isInteger(cacheTokens) || cacheTokens < 1 || (limit !== undefined && cacheTokens > limit)) {
    throw new RangeError(
      `cacheTokens must be from 1 to ${limit ?? "any length"}: current value is ${cacheTokens}`,
    );
  }
  gpuOf(model);
  return createSession(model, cacheTokens, { ids: [], cached: 0, answered: 0 });
}

/** Where a session begins. */
interface SessionStart {
  readonly ids: readonly number[];
  /** How many of the ids are in the cache. */
  readonly cached: number;
  /** How many of the ids were there when the last generation ended; what follows is the next one's prompt. */
  readonly answered: number;
  readonly engine?: Engine;
}

function createSession(model: Model, least: number, start: SessionStart): Session {
  const ids = [...start.ids];
  let { cached, answered, engine } = start;
  let begun = ids.length > 0;
  let busy = 0;
  let disposed = false;
  let last: Promise<unknown> = Promise.resolve();

  const usable = () => {
    if (disposed) throw new Error("The session was disposed of: begin another one");
  };
  const queued = <T>(work: () => Promise<T>): Promise<T> => {
    busy++;
    const result = last.then(work).finally(() => busy--);
    last = result.catch(() => {});
    return result;
  };
  // Only the beginning of a sequence gets BOS.
  const encode = (prompt: Prompt, options: EncodePromptOptions): number[] => {
    const news = encodePrompt(model, prompt, begun ? { ...options, bos: false } : options);
    begun = true;
    return news;
  };
  const run = async (
    news: readonly number[],
    options: ResolvedOptions,
    control: RunControl,
    begin: number,
  ): Promise<GenerateRecord> => {
    const prompt = [...ids, ...news];
    if (prompt.length === 0) throw new RangeError("The session is empty: give a prompt");
    if (prompt.length === cached) {
      throw new RangeError("The text has ended with a stop token: give a prompt to go on from");
    }
    const gpu = gpuOf(model);
    gpu.memory.resetPeak();
    const maxTokens = allowedTokens(model, prompt.length, options.maxTokens);
    const need = Math.max(least, prompt.length + maxTokens);
    const turn = await turnOf(prompt.length - cached, maxTokens, cached, engine);
    const current = engine = await fitEngine(model, engine, need, turn, options);
    writeSampling(current, options, [{ position: cached, remaining: maxTokens }], [prompt]);
    const output = createOutput(model, prompt, 0, options);
    const feeds = [{ sequence: 0, ids: prompt.slice(cached), position: cached }];
    const hooks = outputHooks([output], options, control);
    const kept: number[][][][] = [];
    let prefillAt = NaN;
    let result: DecodeResult;
    try {
      result = await decodeLoop(
        current,
        { sequences: [{ length: prompt.length, maxTokens }], runAhead: options.runAhead, rewindable: true },
        async (record) => {
          prefillAt = performance.now();
          const fed = await prefill(current, feeds, [turn], { record, aborted: hooks.aborted });
          if (options.traceKept) kept.push(await current.cache.positions(0));
          return fed;
        },
        hooks,
      );
    } catch (error) {
      // Nobody knows what the cache has then: the next call begins a new one.
      current.release();
      engine = undefined;
      cached = 0;
      throw error;
    }
    const promptIds = prompt.slice(answered);
    ids.push(...news, ...output.ids);
    answered = ids.length;
    // The last token was sampled but not fed, unless a stop token came after it.
    if (result.fed) cached = ids.length - (output.stopToken ? 0 : 1);
    return makeRecords(model, [output], [promptIds], options, {
      turns: [turn],
      kept,
      cacheTokens: await cacheTokens(current, [output], [turn]),
      start: begin,
      prefillAt,
      ...result,
      loadMs: model.loadMs,
      kernels: options.timings ? await current.times() : undefined,
      bytes: { ...current.bytes, weights: model.store?.bytes ?? 0, peak: gpu.memory.peak },
    })[0];
  };
  const dispose = () => {
    if (disposed) return;
    disposed = true;
    if (busy === 0) engine?.release();
    else last = last.then(() => engine?.release());
  };
  return {
    ids,
    get cacheBytes() {
      return engine?.cache.bytes ?? 0;
    },
    append(prompt, options = {}): void {
      usable();
      const news = encode(prompt, options);
      if (busy === 0) ids.push(...news);
      else queued(() => Promise.resolve(ids.push(...news)));
    },
    generate(prompt, options = {}): GenerateRun<GenerateRecord> {
      usable();
      const begin = performance.now();
      const resolved = resolveOptions(model, options);
      const news = prompt === undefined ? [] : encode(prompt, options);
      // The place in the queue is taken now, the run starts in a later turn of the event loop.
      const { promise: control, resolve } = Promise.withResolvers<RunControl>();
      const record = queued(async () => {
        try {
          return await run(news, resolved, await control, begin);
        } catch (error) {
          // Then this prompt did not become a part of the session.
          begun = ids.length > 0;
          throw error;
        }
      });
      return startRun((control) => {
        resolve(control);
        return record;
      });
    },
    fork(): Promise<Session> {
      usable();
      return queued(async () => {
        let copy: Engine | undefined;
        if (engine) {
          copy = await createEngine(engine.gpu, engine.spec);
          await copy.cache.copyFrom(engine.cache);
        }
        return createSession(model, least, { ids, cached, answered, ...(copy ? { engine: copy } : {}) });
      });
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}

/** The next turn of a sequence whose cache holds `position` tokens or what is left of them. */
async function turnOf(
  tokens: number,
  maxTokens: number,
  position: number,
  engine: Engine | undefined,
): Promise<Turn> {
  const turn = { tokens, maxTokens, position };
  if (!engine?.cache.layout.ragged || position === 0) return turn;
  const layers = (await engine.cache.tokens()).map(([first]) => first);
  return { ...turn, past: layers.map(({ live }) => live), used: layers.map(({ used }) => used) };
}

/** An engine with room for `need` tokens and the tables these options ask for; takes over what the old one keeps. */
async function fitEngine(
  model: Model,
  old: Engine | undefined,
  need: number,
  turn: Turn,
  options: ResolvedOptions,
): Promise<Engine> {
  // What a layer that prunes needs depends on the turn.
  if (coresOf(model).some(({ prunes }) => prunes)) {
    return await replace(old, generateSpec(model, [turn], options, true), turn);
  }
  const capacity = old?.spec.sizes.capacities[0] ?? 0;
  if (old && capacity >= need && sameSampling(old, options)) return old;
  const limit = positionLimit(model) ?? Infinity;
  const grown = need <= capacity ? capacity : Math.max(need, Math.min(capacity * 2, limit));
  const room = { tokens: grown - 1, maxTokens: 1, position: 0 };
  return await replace(old, generateSpec(model, [room], options, true), turn);
}

/** An engine that takes over what another one keeps. */
async function replace(old: Engine | undefined, spec: EngineSpec, { position }: Turn): Promise<Engine> {
  const engine = await createEngine(gpuOf(spec.model), spec);
  if (old) {
    if (position > 0) await engine.cache.copyFrom(old.cache);
    old.release();
  }
  return engine;
}

function sameSampling({ spec }: Engine, options: ResolvedOptions): boolean {
  return spec.purpose.type === "sample" && spec.purpose.sampling.edits === options.edits &&
    spec.purpose.sampling.logprobs === options.logprobs &&
    spec.timed === options.timings &&
    spec.sizes.batchInvariant === options.batchInvariant;
}
