// Rotary position embedding (Su et al. 2021): its angles as tables made in f64, exact at any position.

import { FINE_POSITIONS } from "../../wgsl/rope_store.ts";

/** How components are paired: `half` pairs i with i + size/2, `interleaved` pairs 2i with 2i + 1. */
export type RotaryLayout = "half" | "interleaved";

/** A rotary embedding. */
export interface Rotary {
  /** Names the table: two rotary embeddings of one name are the same. */
  readonly name: string;
  /** Pairing. */
  readonly layout: RotaryLayout;
  /** Components of a head that rotate, the first ones. */
  readonly size: number;
  /** Radians a position, one for each of size / 2 pairs, scaling included. */
  readonly frequencies: readonly number[];
  /** Positions the table covers. */
  readonly positions: number;
}

/**
 * (cos, sin) pairs: 256 fine entries for `position & 255`, then coarse ones for `position >> 8`, each over all pairs. The
 * kernel adds the two angles by the addition formulas, so no error grows with the position.
 */
export function rotaryTable(rotary: Rotary): Float32Array {
  const pairs = rotary.frequencies.length;
  const coarse = Math.max(1, Math.ceil(rotary.positions / FINE_POSITIONS));
  const table = new Float32Array((FINE_POSITIONS + coarse) * pairs * 2);
  for (let entry = 0; entry < FINE_POSITIONS + coarse; entry++) {
    const position = entry < FINE_POSITIONS ? entry : (entry - FINE_POSITIONS) * FINE_POSITIONS;
    for (let pair = 0; pair < pairs; pair++) {
      const angle = position * rotary.frequencies[pair];
      table[(entry * pairs + pair) * 2] = Math.cos(angle);
      table[(entry * pairs + pair) * 2 + 1] = Math.sin(angle);
    }
  }
  return table;
}
