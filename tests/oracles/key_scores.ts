// Scores of keys that need no query, from their definitions, in f64.

const length = (vector: Float64Array): number => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));

/** Mean of the keys at length 1; those of length 0 count as they are. */
export function meanDirection(keys: readonly Float64Array[], headSize: number): Float64Array {
  const mean = new Float64Array(headSize);
  for (const key of keys) {
    const own = length(key);
    if (own > 0) key.forEach((x, d) => mean[d] += x / own / keys.length);
  }
  return mean;
}

/** Cosine of each key to a direction; 0 where either has no length. */
export function cosinesToMean(keys: readonly Float64Array[], mean: Float64Array): number[] {
  const all = length(mean);
  return keys.map((key) => {
    const own = length(key);
    return own > 0 && all > 0 ? key.reduce((sum, x, d) => sum + x * mean[d], 0) / own / all : 0;
  });
}

/** The last step of MurmurHash3, in whole numbers without a bound. */
function mix(x: bigint): bigint {
  const word = (value: bigint): bigint => value & 0xffffffffn;
  let h = word(x + 0x9e3779b9n);
  h = word((h ^ (h >> 16n)) * 0x85ebca6bn);
  h = word((h ^ (h >> 13n)) * 0xc2b2ae35n);
  return h ^ (h >> 16n);
}

/** A number from 0 to below 1 for a position. */
export function positionHash(seed: number, layer: number, head: number, position: number): number {
  const hash = [layer, head, position].reduce((h, x) => mix(h ^ BigInt(x)), mix(BigInt(seed)));
  return Number(hash >> 8n) / 2 ** 24;
}
