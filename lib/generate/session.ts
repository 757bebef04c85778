// A session: one sequence whose cache is kept between calls.

import { readBuffer } from "../gpu/mod.ts";
import type { Model } from "../models/mod.ts";
import { decodeLoop, type DecodeResult } from "./decode_loop.ts";
import { createEngine, type Engine } from "./engine.ts";
import { cacheTokens, generateSpec, makeRecords, outputHooks } from "./generate.ts";
import { gpuOf } from "./gpu_of.ts";
import { type GenerateOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { createOutput } from "./output.ts";
import { prefill } from "./prefill.ts";
import {
  allowedTokens,
  checkIds,
  encodePrompt,
  type EncodePromptOptions,
  positionLimit,
  type Prompt,
  requireCausal,
} from "./prompt.ts";
import { type GenerateRecord, type GenerateRun, type RunControl, startRun } from "./run.ts";
import { writeSampling } from "./sampling_tables.ts";
import { fitEngine, turnOf } from "./session_engine.ts";
import { modelMark, packSession, unpackSession } from "./saved_session.ts";

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
  /**
   * The session as bytes: its tokens and all that its cache keeps, for {@linkcode restoreSession}. Of a model whose layers
   * keep states that is little, however long the text.
   */
  save(): Promise<Uint8Array<ArrayBuffer>>;
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

/**
 * Goes on with a session that was saved, of the same model, here or in another process. Nothing is fed again.
 *
 * @throws {TypeError} when the bytes are no saved session, a damaged one, or one of another model.
 * @throws {RangeError} when the cache is laid out otherwise on this device.
 */
export async function restoreSession(model: Model, bytes: Uint8Array): Promise<Session> {
  requireCausal(model);
  const { session: saved, contents } = unpackSession(bytes);
  const { ids, cached, answered, cache } = saved;
  if (saved.model !== modelMark(model)) {
    throw new TypeError(
      "The session is of another model, or of the same one pruned or stored otherwise: restore it with the model that " +
        "it was saved from",
    );
  }
  checkIds(model, ids);
  const gpu = gpuOf(model);
  if (!cache) return createSession(model, 1, { ids, cached: 0, answered });
  const options = { edits: false, logprobs: undefined, batchInvariant: cache.batchInvariant, timings: false };
  const engine = await createEngine(gpu, generateSpec(model, cache.turns, options, true));
  try {
    const { resources } = engine.cache;
    for (const [name, buffer] of resources) {
      const content = contents.get(name);
      if (content?.length !== buffer.size || contents.size !== resources.size) {
        throw new RangeError(
          "The cache of the saved session is laid out otherwise than this device would: restore it on a device with the " +
            "same limits, or feed its tokens again",
        );
      }
      gpu.device.queue.writeBuffer(buffer, 0, content as Uint8Array<ArrayBuffer>);
    }
  } catch (error) {
    engine.release();
    throw error;
  }
  return createSession(model, 1, { ids, cached, answered, engine });
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
    save(): Promise<Uint8Array<ArrayBuffer>> {
      usable();
      return queued(async () => {
        const shared = { model: modelMark(model), ids, answered };
        if (!engine || cached === 0) return packSession({ ...shared, cached: 0, buffers: [] }, []);
        const { gpu, cache, spec: { sizes: { turns, batchInvariant } } } = engine;
        const buffers = [...cache.resources];
        const contents: Uint8Array[] = [];
        for (const [, buffer] of buffers) {
          contents.push(new Uint8Array(await readBuffer(gpu, buffer, 0, buffer.size)));
        }
        return packSession({
          ...shared,
          cached,
          cache: { turns, batchInvariant },
          buffers: buffers.map(([name, { size }]) => [name, size]),
        }, contents);
      });
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}
