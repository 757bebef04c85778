// generate: text from one prompt or several, packed into one run.

import type { Turn } from "../graph/mod.ts";
import type { Pruning } from "../layers/mod.ts";
import type { Model } from "../models/mod.ts";
import { STATE_CACHE } from "../ops/mod.ts";
import { decodeLoop, RING } from "./decode_loop.ts";
import { createEngine, type Engine, type EngineSpec } from "./engine.ts";
import { type GenerateOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { createOutput, type Output } from "./output.ts";
import { prefillBucket } from "./plans.ts";
import { prefill } from "./prefill.ts";
import { allowedTokens, encodePrompt, isBatch, type Prompt, requireCausal, runWarnings } from "./prompt.ts";
import { type GenerateRecord, type GenerateRun, type RunControl, startRun } from "./run.ts";
import { writeSampling } from "./sampling_tables.ts";
import { gpuOf } from "./gpu_of.ts";

/**
 * Continues a prompt. The run starts at once; iterate over its pieces, or only await its record. Options out of range,
 * an empty prompt or one over the context are errors before anything runs.
 *
 * ```ts ignore
 * const run = generate(model, "The rain had not stopped for", { maxTokens: 200, seed: 7 });
 * for await (const piece of run) await Deno.stdout.write(piece.bytes);
 * console.error(await run.record);
 * ```
 *
 * @throws {RangeError} when an option or the prompt is out of range.
 */
export function generate(
  model: Model,
  prompt: Prompt,
  options?: GenerateOptions,
): GenerateRun<GenerateRecord>;
/**
 * Continues several prompts at once, packed into one run: each gets what it gets alone. Pieces come interleaved with the
 * `index` of their prompt; the record is an array.
 */
export function generate(
  model: Model,
  prompts: readonly Prompt[],
  options?: GenerateOptions,
): GenerateRun<GenerateRecord[]>;
/** Continues one prompt or several. */
export function generate(
  model: Model,
  prompt: Prompt | readonly Prompt[],
  options: GenerateOptions = {},
): GenerateRun<GenerateRecord> | GenerateRun<GenerateRecord[]> {
  const start = performance.now();
  requireCausal(model);
  const resolved = resolveOptions(model, options);
  const batch = isBatch(prompt);
  const prompts = (batch ? prompt : [prompt]).map((one) => encodePrompt(model, one, options));
  const limits = prompts.map((ids) => allowedTokens(model, ids.length, resolved.maxTokens));
  gpuOf(model);
  const work = (control: RunControl) => runPrompts(model, prompts, limits, resolved, control, start);
  return batch ? startRun(work) : startRun(async (control) => (await work(control))[0]);
}

/** What an engine needs to generate in these turns. */
export function generateSpec(
  model: Model,
  turns: readonly Turn[],
  options: Pick<ResolvedOptions, "edits" | "logprobs" | "batchInvariant" | "timings">,
  rewindable = false,
): EngineSpec {
  const { edits, logprobs, batchInvariant, timings } = options;
  return {
    model,
    timed: timings,
    purpose: {
      type: "sample",
      sampling: { edits, ring: RING, ...(logprobs === undefined ? {} : { logprobs }) },
    },
    sizes: {
      capacities: turns.map(({ tokens, maxTokens, position }) => position + tokens + maxTokens),
      turns,
      rewindable,
      prefillRows: prefillBucket(model, turns.map(({ tokens }) => tokens)),
      logitRows: turns.length,
      batchInvariant,
    },
  };
}

async function runPrompts(
  model: Model,
  prompts: readonly number[][],
  limits: readonly number[],
  options: ResolvedOptions,
  control: RunControl,
  start: number,
): Promise<GenerateRecord[]> {
  const gpu = gpuOf(model);
  gpu.memory.resetPeak();
  const turns = prompts.map((ids, i) => ({ tokens: ids.length, maxTokens: limits[i], position: 0 }));
  const engine = await createEngine(gpu, generateSpec(model, turns, options));
  try {
    writeSampling(engine, options, prompts.map((_, i) => ({ position: 0, remaining: limits[i] })), prompts);
    const outputs = prompts.map((ids, index) => createOutput(model, ids, index, options));
    const hooks = outputHooks(outputs, options, control);
    const feeds = prompts.map((ids, sequence) => ({ sequence, ids, position: 0 }));
    const prefillAt = performance.now();
    const kept: number[][][][] = [];
    const result = await decodeLoop(
      engine,
      {
        sequences: prompts.map((ids, i) => ({ length: ids.length, maxTokens: limits[i] })),
        runAhead: options.runAhead,
        rewindable: false,
      },
      async (record) => {
        const fed = await prefill(engine, feeds, turns, { record, aborted: hooks.aborted });
        if (options.traceKept) { for (const i of prompts.keys()) kept.push(await engine.cache.positions(i)); }
        return fed;
      },
      hooks,
    );
    return makeRecords(model, outputs, prompts, options, {
      turns,
      kept,
      cacheTokens: await cacheTokens(engine, outputs, turns),
      start,
      prefillAt,
      ...result,
      loadMs: model.loadMs,
      kernels: options.timings ? await engine.times() : undefined,
      bytes: { ...engine.bytes, weights: model.store?.bytes ?? 0, peak: gpu.memory.peak },
    });
  } finally {
    engine.release();
  }
}

/** Connects the decode loop with the texts it makes. */
export function outputHooks(outputs: readonly Output[], options: ResolvedOptions, control: RunControl) {
  const aborted = () => options.signal?.aborted === true || control.abandoned();
  return {
    take: (sequence: number, sample: Parameters<Output["take"]>[0]) => outputs[sequence].take(sample),
    flush(): void {
      if (aborted()) { for (const output of outputs) output.abort(); }
      for (const output of outputs) {
        const piece = output.piece();
        if (piece) control.push(piece);
      }
    },
    aborted,
    watched: control.watched,
  };
}

/** Tokens in each layer's cache, by sequence, 0 where it keeps a state: read from the device where layers keep different ones. */
export async function cacheTokens(
  engine: Engine,
  outputs: readonly Output[],
  turns: readonly Turn[],
): Promise<number[][]> {
  const { layout, layers } = engine.cache;
  const live = layout.ragged ? await engine.cache.tokens() : undefined;
  return turns.map(({ position, tokens }, sequence) => {
    const { ids, stopToken } = outputs[sequence];
    const all = position + tokens + Math.max(0, ids.length - (stopToken ? 0 : 1));
    let next = 0;
    return layers.map(({ kind }) => {
      if (kind === STATE_CACHE) return 0;
      const layer = live?.[next++];
      return layer ? layer[sequence].live : all;
    });
  });
}

/** What the records of a run share, or have by sequence. */
export interface RunFacts {
  readonly turns: readonly Turn[];
  readonly kept: readonly GenerateRecord["kept"][];
  readonly cacheTokens: readonly (readonly number[])[];
  readonly start: number;
  readonly prefillAt: number;
  readonly firstTokenAt: number;
  readonly fed: boolean;
  readonly readbacks: number;
  readonly loadMs: number;
  readonly kernels: GenerateRecord["kernels"];
  readonly bytes: GenerateRecord["bytes"];
}

/** Makes the records at the end of a run. */
export function makeRecords(
  model: Model,
  outputs: readonly Output[],
  prompts: readonly (readonly number[])[],
  options: ResolvedOptions,
  facts: RunFacts,
): GenerateRecord[] {
  const { start, prefillAt, firstTokenAt, fed, readbacks, loadMs, kernels, bytes } = facts;
  const { pruning } = model;
  const promptTokens = prompts.reduce((sum, ids) => sum + ids.length, 0);
  const later = outputs.reduce((sum, { ids }) => sum + Math.max(0, ids.length - 1), 0);
  const perSecond = (tokens: number, ms: number) => ms > 0 ? tokens / ms * 1000 : 0;
  const timing = {
    loadMs,
    timeToFirstTokenMs: firstTokenAt - start,
    prefillTokensPerSecond: fed ? perSecond(promptTokens, firstTokenAt - prefillAt) : 0,
    decodeTokensPerSecond: perSecond(later, performance.now() - firstTokenAt),
  };
  return outputs.map((output, i): GenerateRecord => {
    const warnings = runWarnings(model, facts.turns[i].position + facts.turns[i].tokens + output.ids.length);
    return {
      text: output.text,
      ids: output.ids,
      promptIds: prompts[i],
      finishReason: output.finishReason ?? "aborted",
      seed: options.seed,
      usage: { promptTokens: prompts[i].length, completionTokens: output.ids.length },
      timing,
      bytes,
      cacheTokens: facts.cacheTokens[i],
      ...(facts.kept[i] ? { kept: facts.kept[i] } : {}),
      ...(pruning ? { pruning: pruningOf(pruning, facts.turns[i]) } : {}),
      ...(model.linearized ? { linearized: model.linearized } : {}),
      ...(warnings.length ? { warnings } : {}),
      readbacks,
      ...(kernels ? { kernels } : {}),
      ...(options.logprobs === undefined ? {} : { logprobs: output.logprobs }),
    };
  });
}

function pruningOf({ policy, options, settle }: Pruning, turn: Turn): NonNullable<GenerateRecord["pruning"]> {
  const settled = settle(turn);
  return { policy, options, ...(settled ? { settled } : {}) };
}
