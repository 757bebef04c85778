// The engine of a session: made anew when a turn needs more than it has, and then it takes over what the old one keeps.

import type { Turn } from "../graph/mod.ts";
import { coresOf } from "../layers/mod.ts";
import type { Model } from "../models/mod.ts";
import { createEngine, type Engine, type EngineSpec } from "./engine.ts";
import { generateSpec } from "./generate.ts";
import { gpuOf } from "./gpu_of.ts";
import type { ResolvedOptions } from "./options.ts";
import { positionLimit } from "./prompt.ts";

/** The next turn of a sequence whose cache holds `position` tokens or what is left of them. */
export async function turnOf(
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
export async function fitEngine(
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
