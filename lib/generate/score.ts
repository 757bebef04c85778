// score: how likely a model finds a text.

import { readBuffer } from "../gpu/mod.ts";
import type { Model } from "../models/mod.ts";
import { createFeedEngine, groups } from "./forward.ts";
import { gpuOf } from "./gpu_of.ts";
import { dropsRows } from "./plans.ts";
import { sliceRows } from "./prefill.ts";
import { createDecodingScorer } from "./score_by_decoding.ts";
import { encodePrompt, positionLimit, type Prompt, requireCausal } from "./prompt.ts";

/** Options of {@linkcode score}. */
export interface ScoreOptions {
  /** Tokens of context a window has. Default: the model's context. */
  readonly window?: number;
  /** Tokens from one window to the next; every token is scored once, with as much context as its window has. Default: half the window. */
  readonly stride?: number;
  /**
   * Tokens at the beginning that are context alone and are not scored. Default: 1. Of a pruned model they are the prompt
   * of the first window; one that evicts nothing in decode needs some.
   */
  readonly context?: number;
  /** Whether BOS is set before a text. Default: as the tokenizer says. */
  readonly bos?: boolean;
  /** Ends scoring with an error. */
  readonly signal?: AbortSignal;
  /** Told after every window. */
  readonly onProgress?: (scored: number, total: number) => void;
}

/** What {@linkcode score} gives. Field names are those of `cairn score --json`. */
export interface Score {
  /** Scored tokens: all but those that are context alone, usually the first. */
  readonly tokens: number;
  /** Mean negative log-likelihood a token, natural log. */
  readonly meanNll: number;
  /** exp(meanNll). */
  readonly perplexity: number;
  /** Bits a byte of UTF-8; null for token ids. */
  readonly bitsPerByte: number | null;
  /** Window that was used. */
  readonly window: number;
  /** Stride that was used. */
  readonly stride: number;
  /** Negative log-likelihood of every scored token. */
  readonly nll: Float32Array<ArrayBuffer>;
}

/**
 * Scores a text or token ids with sliding windows. Of a model that drops rows of a prompt, what stands before the scored
 * part of a window is the prompt, and the scored part is decoded as it would be generated.
 *
 * @throws {RangeError} when there are fewer than two tokens, or window, stride and context do not fit.
 */
export async function score(model: Model, prompt: Prompt, options: ScoreOptions = {}): Promise<Score> {
  requireCausal(model);
  const ids = encodePrompt(model, prompt, options.bos === undefined ? {} : { bos: options.bos });
  if (ids.length < 2) {
    throw new RangeError("Scoring needs at least two tokens: the first one is only context");
  }
  const limit = positionLimit(model);
  const window = options.window ?? Math.min(model.config.contextLength, limit ?? Infinity);
  if (!Number.isInteger(window) || window < 2 || (limit !== undefined && window > limit)) {
    throw new RangeError(`window must be from 2 to ${limit ?? "any length"}: current value is ${window}`);
  }
  const stride = options.stride ?? Math.max(1, Math.floor(window / 2));
  if (!Number.isInteger(stride) || stride < 1 || stride >= window) {
    throw new RangeError(
      `stride must be from 1 to ${window - 1}, less than the window: current value is ${stride}`,
    );
  }
  const { context = 1 } = options;
  const most = Math.min(window, ids.length) - 1;
  if (!Number.isInteger(context) || context < 1 || context > most) {
    throw new RangeError(
      `context must be from 1 to ${most}, less than the window and the text: current value is ${context}`,
    );
  }
  const nll = new Float32Array(ids.length - context);
  const windows = { window, stride, context, nll };
  if (dropsRows(model)) await scoreWindowsByDecoding(model, ids, windows, options);
  else await scoreWindows(model, ids, windows, options);
  const sum = nll.reduce((a, b) => a + b, 0);
  const meanNll = sum / nll.length;
  const bytes = typeof prompt === "string" ? scoredBytes(model, prompt, ids.slice(0, context)) : 0;
  return {
    tokens: nll.length,
    meanNll,
    perplexity: Math.exp(meanNll),
    bitsPerByte: bytes > 0 ? sum / Math.LN2 / bytes : null,
    window,
    stride,
    nll,
  };
}

/** Windows over a text, and the losses that they fill in. */
interface Windows {
  readonly window: number;
  readonly stride: number;
  readonly context: number;
  readonly nll: Float32Array<ArrayBuffer>;
}

/** A model that drops rows has no logits of a whole prompt: what is scored is decoded. */
async function scoreWindowsByDecoding(
  model: Model,
  ids: readonly number[],
  { window, stride, context, nll }: Windows,
  options: ScoreOptions,
): Promise<void> {
  const scorer = createDecodingScorer(model);
  try {
    let scored = context;
    for (let start = 0; scored < ids.length; start += stride) {
      options.signal?.throwIfAborted();
      const end = Math.min(ids.length, start + window);
      nll.set(await scorer.score(ids.slice(start, scored), ids.slice(scored, end)), scored - context);
      scored = end;
      options.onProgress?.(scored, ids.length);
    }
  } finally {
    scorer.release();
  }
}

async function scoreWindows(
  model: Model,
  ids: readonly number[],
  { window, stride, context, nll }: Windows,
  options: ScoreOptions,
): Promise<void> {
  const gpu = gpuOf(model);
  const engine = await createFeedEngine(model, Math.min(window, ids.length), { type: "score" });
  try {
    const { prefillRows, logitRows } = engine.spec.sizes;
    const empty = new Uint32Array(8);
    let scored = context;
    for (let start = 0; scored < ids.length; start += stride) {
      options.signal?.throwIfAborted();
      const part = ids.slice(start, start + window);
      engine.write("states", empty);
      engine.cache.reset();
      for (const rows of sliceRows([{ sequence: 0, ids: part, position: 0 }], prefillRows)) {
        engine.prefill({ rows, logitRows: [], turns: engine.spec.sizes.turns }, ["body"]);
        // Row p predicts token p + 1 of the window.
        const wanted = rows.flatMap((row, i) =>
          row.position + 1 < part.length && start + row.position + 1 >= scored ? [i] : []
        );
        for (const group of groups(wanted, logitRows)) {
          const first = start + rows[group[0]].position;
          engine.write("targets", new Uint32Array(ids.slice(first + 1, first + 1 + group.length)));
          engine.head(group, ["head", "score"]);
          const data = await readBuffer(gpu, engine.table("nll"), 0, group.length * 4);
          nll.set(new Float32Array(data), first + 1 - context);
        }
      }
      scored = Math.min(ids.length, start + part.length);
      options.onProgress?.(scored, ids.length);
    }
  } finally {
    engine.release();
  }
}

/** Bytes of a text without those of its first tokens, which are not scored. */
function scoredBytes(model: Model, text: string, context: readonly number[]): number {
  const bytes = context.reduce((sum, id) => sum + (model.tokenizer?.bytesOf(id).length ?? 0), 0);
  return new TextEncoder().encode(text).length - bytes;
}
