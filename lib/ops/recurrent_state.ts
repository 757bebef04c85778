// What a core keeps of a sequence in constant size, whatever its length: recurrent states, the keys of one block, a window.

import type { CacheRequest, Trace } from "../graph/mod.ts";

/** Kind of the cache that keeps recurrent states. */
export const STATE_CACHE = "state";

/** The recurrent state of a layer: f32 [sequences, words], all zero for a sequence that has not begun. */
export interface RecurrentState {
  /** Resource name of its buffer. */
  readonly name: string;
  /** Index among the layers with a state. */
  readonly layer: number;
  /** Numbers of a sequence, a multiple of 4. */
  readonly words: number;
}

/** Resource name of a layer's state. */
export function stateName(layer: number): string {
  return `state.${layer}`;
}

/** Numbers that a layer keeps of a sequence. */
export function stateWords(request: CacheRequest): number {
  return request.sizes.words;
}

/**
 * Asks for a state of `words` numbers a sequence. The kernels of a step change it in place; it is copied whole where steps
 * may be taken back, so it may hold anything that is made of numbers.
 *
 * @throws {RangeError} when `words` is no positive multiple of 4.
 */
export function recurrentState(trace: Trace, words: number): RecurrentState {
  if (!Number.isSafeInteger(words) || words < 4 || words % 4 !== 0) {
    throw new RangeError(
      `A recurrent state takes a positive multiple of 4 numbers: current value is ${words}`,
    );
  }
  const { layer } = trace.cache(STATE_CACHE, { words });
  return { name: stateName(layer), layer, words };
}
