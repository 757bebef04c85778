// --check: what a swap of attention does to the perplexity of the prompt.

import { type Model, score } from "../../mod.ts";
import { WrongCall } from "./errors.ts";
import type { Values } from "./flags.ts";

/** Perplexity of a text before and after a swap. Field names are those of `--json`. */
export interface SwapCheck {
  /** Perplexity of the model as it was loaded. */
  readonly before: number;
  /** Perplexity with linear attention, unpruned. */
  readonly after: number;
  /** Tokens that were scored: all but the first. */
  readonly tokens: number;
}

/** A model as it was loaded and with linear attention in it. */
export interface Swap {
  /** As it was loaded. */
  readonly before: Model;
  /** With linear attention. */
  readonly after: Model;
}

/**
 * Whether `--check` is to be made: where nobody is told of it, it is not.
 *
 * @throws {WrongCall} when there is nothing to compare.
 */
export function wantsCheck(values: Values): boolean {
  if (values.check && !values.linear) {
    throw new WrongCall(
      "--check compares a model before and after --linear: add --linear CORE, or leave it out",
    );
  }
  return values.check === true && (values.json === true || !values.quiet);
}

/**
 * @throws {WrongCall} when a prompt is too short to be scored.
 */
export function requireScorable(ids: readonly number[]): void {
  if (ids.length < 2) {
    throw new WrongCall(
      `--check needs a prompt of at least 2 tokens, as the first is only context: this one has ${ids.length}`,
    );
  }
}

/** Scores ids that fit in one window with both models; undefined when Ctrl-C ended that. */
export async function checkSwap(
  { before, after }: Swap,
  ids: readonly number[],
  signal: AbortSignal,
): Promise<SwapCheck | undefined> {
  requireScorable(ids);
  const options = { window: ids.length, signal };
  try {
    const { perplexity, tokens } = await score(before, ids, options);
    return { before: perplexity, after: (await score(after, ids, options)).perplexity, tokens };
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}

/** The check as a line. */
export function checkLine({ before, after, tokens }: SwapCheck): string {
  return `check: perplexity ${before.toFixed(2)} before, ${after.toFixed(2)} after, on ${tokens} token${
    tokens === 1 ? "" : "s"
  }\n`;
}
