// Slots that stay as they are for a while after they were evicted, so that steps can be taken back.

/** Most slots that one step evicts: a block. */
const MOST_EVICTED = 256;

/** Slots beyond its capacity that a cache needs, when evicted ones stay untouched for `reuseDelay` evictions. */
export function reservedSlots(reuseDelay: number): number {
  return reuseDelay > 0 ? reuseDelay + MOST_EVICTED : 0;
}
