// Slots that a schedule leaves, as a sum over the rows of a turn.

import { BLOCK_BIT } from "../../../lib/transforms/kv_pruning/decode_blocks.ts";
import type { Schedule } from "../../../lib/transforms/kv_pruning/schedule.ts";

/** Slots that each layer holds after the prompt and `fed` new rows, which are one less than the tokens sampled. */
export function cacheLengths(schedule: Schedule, fed: number): number[] {
  return schedule.layers.map(({ past, window, keepSlots, genKeep, capacity }) => {
    let length = past + window + keepSlots;
    for (let row = 1; row <= fed; row++) {
      length = Math.min(length, capacity - 1) + 1; // A full layer evicts first.
      if (schedule.windows[row] >= BLOCK_BIT) length -= schedule.genBlock - genKeep;
    }
    return length;
  });
}
