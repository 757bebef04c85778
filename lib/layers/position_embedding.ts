// Embeddings of positions as a layer, after that of tokens.

import type { Weight } from "../graph/mod.ts";
import { positionEmbedding } from "../ops/mod.ts";
import { type Hidden, hidden, type Layer, leaf } from "./layer.ts";

/** Configuration of {@linkcode learnedPositions}. */
export interface LearnedPositionsConfig {
  /** Embeddings [positions, width]. */
  readonly table: Weight;
  /** Row of the table for the first token. */
  readonly offset: number;
}

/** x + table[position + offset]; checkpoints of fairseq begin behind the id of padding. */
export function learnedPositions(table: Weight, offset = 0): Layer<Hidden, Hidden> {
  return leaf<Hidden, Hidden, LearnedPositionsConfig>(
    "learnedPositions",
    { table, offset },
    (trace, x) => hidden(positionEmbedding(trace, x.value, { table, offset })),
  );
}

/**
 * x + [sin(p f) | cos(p f)], p = position + offset, f from 1 down to 1/10000 (Vaswani et al. 2017): sines in the first half
 * and cosines in the second, as fairseq has them, not in turns. It begins behind the id of padding too.
 */
export function sinusoidalPositions(offset = 0): Layer<Hidden, Hidden> {
  return leaf<Hidden, Hidden, { readonly offset: number }>(
    "sinusoidalPositions",
    { offset },
    (trace, x) => hidden(positionEmbedding(trace, x.value, { offset })),
  );
}
