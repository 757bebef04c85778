// Time of prompts by length, of whole models.

import { generate } from "../../lib/generate/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import { type Budget, tell } from "./budget.ts";
import type { ComparedCore } from "./linear_models.ts";
import { short } from "./table.ts";

/** A core and a length of prompt. */
export interface PrefillCell {
  readonly core: string;
  /** Tokens of the prompt. */
  readonly length: number;
  /** Milliseconds until the first token is there: the shortest of up to three. */
  readonly ms: number;
}

const RUNS = 3;
/** After so long a prompt is not fed again. */
const ENOUGH_MS = 3000;
/** From here on a shorter prompt warms up. */
const WARM_UP = 1024;

async function feed(model: Model, length: number): Promise<number> {
  const ids = Array.from({ length }, (_, i) => (i * 7919) % model.config.vocabularySize);
  const { timing } = await generate(model, ids, { maxTokens: 1, temperature: 0, ignoreEos: true }).record;
  return length / timing.prefillTokensPerSecond * 1000;
}

async function timePrefill(model: Model, length: number): Promise<number> {
  await feed(model, Math.min(length, WARM_UP));
  let best = Infinity;
  let spent = 0;
  for (let run = 0; run < RUNS && spent < ENOUGH_MS; run++) {
    const ms = await feed(model, length);
    spent += ms;
    best = Math.min(best, ms);
  }
  return best;
}

/** Times every core with every length, the short ones first. */
export async function prefillCells(
  model: Model,
  cores: readonly ComparedCore[],
  lengths: readonly number[],
  budget: Budget,
): Promise<PrefillCell[]> {
  const cells: PrefillCell[] = [];
  const made = cores.map((core) => ({ core, model: core.apply(model) }));
  for (const length of lengths) {
    for (const { core, model } of made) {
      const last = cells.findLast((cell) => cell.core === core.name);
      const growth = last ? (length / last.length) ** (core.quadratic ? 2 : 1) : 0;
      const seconds = growth * (last?.ms ?? 0) / 1000;
      if (!budget.fits(seconds, `prefill of ${core.name} with ${length} tokens`)) continue;
      const ms = await timePrefill(model, length);
      cells.push({ core: core.name, length, ms });
      tell(`prefill  ${core.name}  ${length} tokens: ${short(ms)} ms`);
    }
  }
  return cells;
}
