// The models that tests run, loaded once for each test file, and small helpers around logits.

import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import type { GenerateRecord, GenerateRun, Piece, TokenLogprobs } from "../../lib/generate/mod.ts";
import { loadModel, type Model } from "../../lib/models/mod.ts";
import { sharedGpu } from "./kernel_case.ts";

/** The model that comes along. */
export const NOVEL_LLAMA: string = fromFileUrl(new URL("../../examples/models/novel-llama", import.meta.url));

/** The TransNormer that comes along. */
export const NOVEL_TRANSNORMER: string = fromFileUrl(
  new URL("../../examples/models/novel-transnormer", import.meta.url),
);

/** A path under `../shared/models`, a folder beside the repository that may be absent. */
export function sharedPath(...parts: string[]): string {
  return join(fromFileUrl(new URL("../../../shared/models", import.meta.url)), ...parts);
}

/** Whether there is something at a path. */
export function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

const novel = new Map<string, Promise<Model>>();

/** The model that comes along, loaded once on the shared device. */
export function novelLlama(dtype: "f16" | "f32" = "f32"): Promise<Model> {
  let model = novel.get(dtype);
  if (!model) novel.set(dtype, model = sharedGpu().then((gpu) => loadModel(gpu, NOVEL_LLAMA, { dtype })));
  return model;
}

/** Row `position` of logits [positions, width]. */
export function rowOf(logits: Float32Array, position: number, width: number): Float32Array {
  return logits.subarray(position * width, (position + 1) * width);
}

/** Natural log-probabilities in f64. */
export function logSoftmax(logits: Float32Array): Float64Array {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  const logSum = largest + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - logSum);
}

/** Index of the largest number, the lowest of equal ones, and by how much it leads. */
export function largest(values: ArrayLike<number>): { index: number; margin: number } {
  let index = 0;
  let second = -Infinity;
  for (let i = 1; i < values.length; i++) {
    if (values[i] > values[index]) {
      second = values[index];
      index = i;
    } else second = Math.max(second, values[i]);
  }
  return { index, margin: values[index] - second };
}

/** Largest |a - b|. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assertEquals(a.length, b.length);
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i] - b[i]);
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}

/** Pieces and record of a run that is watched. */
export async function watch<R>(run: GenerateRun<R>): Promise<{ pieces: Piece[]; record: R }> {
  const pieces = await Array.fromAsync(run);
  return { pieces, record: await run.record };
}

/** What of a record must not depend on how the steps were submitted. */
export function essence(record: GenerateRecord): Partial<GenerateRecord> {
  const { ids, text, finishReason, promptIds, logprobs } = record;
  return { ids, text, finishReason, promptIds, ...(logprobs ? { logprobs } : {}) };
}

/** Top-two margin under which a greedy choice is a near tie. */
const NEAR_TIE = 1e-3;

/**
 * Asserts that two greedy runs gave the same tokens, up to a near tie, with log-probabilities that agree. Both ran with
 * `logprobs` of at least 2.
 */
export function assertAgree(
  actual: GenerateRecord,
  expected: GenerateRecord,
  name = "",
  tolerance = 1e-4,
): void {
  const [ours, theirs] = [actual.logprobs, expected.logprobs] as TokenLogprobs[][];
  for (const [i, { id, logprob, top }] of theirs.entries()) {
    const margin = top[0].logprob - top[1].logprob;
    if (ours[i]?.id !== id && margin < NEAR_TIE) return;
    assertEquals(ours[i]?.id, id, `${name}: token ${i}, margin ${margin}`);
    const difference = Math.abs(ours[i].logprob - logprob);
    assert(difference < tolerance, `${name}: log-probability of token ${i} differs by ${difference}`);
  }
  assertEquals(ours.length, theirs.length, name);
}
