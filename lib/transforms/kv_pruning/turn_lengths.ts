// The arithmetic under every plan of PyramidInfer: rows by layer in prefill, slots by layer over a whole turn.

import type { Turn as WholeTurn } from "../../layers/mod.ts";
import { decodeBlocks, decodeRise } from "./decode_blocks.ts";
import type { ResolvedPyramidInfer } from "./pyramid_infer_options.ts";

/** What lengths depend on of a turn: tokens fed, most new tokens (the last is never fed), and what the cache has. */
export type Turn = Pick<WholeTurn, "tokens" | "maxTokens" | "past">;

/** Lengths of a turn in which no layer but the first is under a cap. All are of the turn alone. */
export interface TurnLengths {
  /** Rows entering each layer, and those left after the last. */
  readonly rows: readonly number[];
  /** Newest rows that prefill never drops. */
  readonly window: number;
  /** Slots of each layer after the prompt. */
  readonly stored: readonly number[];
  /** Tokens that each layer keeps of a block of generated ones. */
  readonly genKeeps: readonly number[];
  /** Most slots of each layer live at once. */
  readonly needs: readonly number[];
  /** Most newest tokens that an eviction between two rows of the turn must spare. */
  readonly spared: number;
}

function decayed(strategy: string, decay: number, layer: number, layers: number): number {
  if (strategy === "cosine") return decay + (1 - decay) * (1 + Math.cos(Math.PI * layer / layers)) / 2;
  if (strategy === "linear") return decay + (1 - decay) * layer / layers;
  return decay;
}

/** Context rows that a layer leaves: a share of them, or all where too few would be left. */
function contextLeft(options: ResolvedPyramidInfer, context: number, least: number, ratio: number): number {
  if (options.prefillDecayStrategy === "geometric") {
    return Math.min(context, Math.max(least, Math.floor(context * ratio)));
  }
  if (context <= least || ratio >= 1) return context;
  const kept = Math.floor(context * ratio);
  return kept <= least ? context : kept;
}

function prefillRows(options: ResolvedPyramidInfer, layers: number, turn: Turn, window: number): number[] {
  const { startLayer, interval, prefillDecay, prefillDecayStrategy } = options;
  const least = prefillDecayStrategy === "geometric"
    ? sinksOf(options, turn)
    : Math.min(options.minContext, turn.tokens - window);
  const rows = [turn.tokens];
  for (let layer = 0; layer < layers; layer++) {
    const level = layer - startLayer;
    const context = rows[layer] - window;
    const drops = level >= 0 && level % interval === 0;
    const ratio = drops ? decayed(prefillDecayStrategy, prefillDecay, level, layers - startLayer) : 1;
    rows.push(window + (drops ? contextLeft(options, context, least, ratio) : context));
  }
  return rows;
}

/** Whole blocks below the start layer; from there on every layer compresses, whatever the interval. */
function genKeepOf(options: ResolvedPyramidInfer, layer: number, layers: number): number {
  const { genBlock, genCompress, genDecay, genDecayStrategy, startLayer } = options;
  if (layer < startLayer) return genBlock;
  const share = decayed(genDecayStrategy, genDecay, layer - startLayer, layers - startLayer);
  return Math.max(1, Math.floor(genBlock * genCompress * share));
}

/** First tokens that a turn keeps in any case: in a later turn they are in the cache already. */
export function sinksOf(options: ResolvedPyramidInfer, turn: Turn): number {
  return turn.past ? 0 : options.sinks;
}

/** Slots that a turn leaves free after the prompt, so that a first new row finds one. */
export function reserveOf(turn: Turn): number {
  return turn.maxTokens > 1 ? 1 : 0;
}

/**
 * Lengths of a turn.
 *
 * @param cap most slots of the turn in layer 0, whose length moves the recent window of all layers
 * @param windows where given, gets what `Schedule.windows` holds
 */
export function turnLengths(
  options: ResolvedPyramidInfer,
  layers: number,
  turn: Turn,
  cap = Infinity,
  windows?: Uint32Array,
): TurnLengths {
  const { recentRatio, genBlock, sameLayer } = options;
  const { tokens, maxTokens } = turn;
  const window = 1 + Math.floor(recentRatio * tokens);
  const rows = prefillRows(options, layers, turn, window);
  const genKeeps = Array.from({ length: layers }, (_, layer) => genKeepOf(options, layer, layers));
  const stored = genKeeps.map((_, layer) => sameLayer ? rows[layer + 1] : rows[layer]);
  const past = turn.past?.[0] ?? 0;
  const { closes, spared } = decodeBlocks({
    recentRatio,
    block: genBlock,
    keep: genKeeps[0],
    length: past + Math.min(stored[0], cap - reserveOf(turn)),
    cap: past + cap,
    window,
    maxTokens,
  }, windows);
  const rises = new Map<number, number>();
  const needs = genKeeps.map((genKeep, layer) => {
    if (!rises.has(genKeep)) rises.set(genKeep, decodeRise(closes, genBlock - genKeep, maxTokens));
    return stored[layer] + rises.get(genKeep)!;
  });
  return { rows, window, stored, genKeeps, needs, spared };
}
