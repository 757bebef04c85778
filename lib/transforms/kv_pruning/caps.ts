// A ceiling for each layer, for budgets that decays and ratios cannot meet: decode then evicts a token for each new one.

import type { ResolvedPyramidInfer } from "./pyramid_infer_options.ts";
import { reserveOf, sinksOf, type Turn, turnLengths } from "./turn_lengths.ts";

/** Caps by layer and the slots that they allocate. */
interface Caps {
  readonly caps: readonly number[];
  readonly slots: number;
}

/** Caps in proportion to what each layer would need, never below what may not be evicted. */
function capsAt(options: ResolvedPyramidInfer, layers: number, turn: Turn, scale: number): Caps {
  const { startLayer, recentRatio } = options;
  const reserve = reserveOf(turn);
  const window = 1 + Math.floor(recentRatio * turn.tokens);
  // Layer 0's cap moves the protected window, and the window is a floor under the caps: settle both, from below.
  let first = startLayer > 0 ? Infinity : window + reserve;
  for (;;) {
    const { needs, spared } = turnLengths(options, layers, turn, first);
    const floor = sinksOf(options, turn) + spared + reserve;
    // Offsets by layer, so that a finer scale adds one slot at a time, from the first layer on.
    const caps = needs.map((need, layer) =>
      layer < startLayer
        ? Infinity
        : Math.max(floor, Math.floor(need * scale + (layers - 1 - layer) / layers))
    );
    if (caps[0] <= first) {
      caps[0] = first;
      const slots = needs.reduce((sum, need, layer) => sum + Math.min(need, caps[layer]), 0);
      return { caps, slots };
    }
    first = caps[0];
  }
}

/** Fewest slots of the turn that caps can hold it to. */
export function leastSlots(options: ResolvedPyramidInfer, layers: number, turn: Turn): number {
  return capsAt({ ...options, recentRatio: 0 }, layers, turn, 0).slots;
}

/**
 * The largest caps that hold a turn to a budget, in the shape of its schedule. The recent ratio is halved while the
 * protected tokens alone are too many; then it is 0.
 *
 * @param slots slots of the turn, at least `leastSlots`
 */
export function capTo(
  options: ResolvedPyramidInfer,
  layers: number,
  turn: Turn,
  slots: number,
): ResolvedPyramidInfer {
  const lowest = 1 / 1024;
  let capped = options;
  while (capsAt(capped, layers, turn, 0).slots > slots && capped.recentRatio > 0) {
    const halved = capped.recentRatio / 2;
    capped = { ...capped, recentRatio: halved < lowest ? 0 : halved };
  }
  let low = 0;
  let high = 2;
  let best = capsAt(capped, layers, turn, 0);
  for (let step = 0; step < 48 && best.slots < 0.999 * slots; step++) {
    const middle = (low + high) / 2;
    const next = capsAt(capped, layers, turn, middle);
    if (next.slots <= slots) {
      low = middle;
      if (next.slots > best.slots) best = next;
    } else high = middle;
  }
  return { ...capped, caps: best.caps };
}
