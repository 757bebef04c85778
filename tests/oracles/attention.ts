// Attention from its definition, in f64: no splits, no tiles, no tables of angles.

/** One slot of a cache as the oracle sees it: the token's position and where its key and value stand. */
export interface Slot {
  readonly position: number;
  readonly key: Float64Array;
  readonly value: Float64Array;
}

/** Score of a query against a key. */
export function score(query: Float64Array, key: Float64Array, scale: number): number {
  let sum = 0;
  for (let d = 0; d < query.length; d++) sum += query[d] * key[d];
  return scale * sum;
}

/** Sum of values with weights exp(score - maximum) over visible slots, its maximum, and the sum of weights. */
export interface Partial {
  readonly maximum: number;
  readonly sum: number;
  readonly output: Float64Array;
}

/** Unnormalised attention over some slots; a slot is visible if its position is not later than the query's. */
export function partialAttention(
  query: Float64Array,
  position: number,
  slots: readonly Slot[],
  scale: number,
): Partial {
  const output = new Float64Array(query.length);
  const visible = slots.filter((slot) => slot.position <= position);
  const scores = visible.map((slot) => score(query, slot.key, scale));
  const maximum = Math.max(...scores);
  let sum = 0;
  visible.forEach((slot, i) => {
    const weight = Math.exp(scores[i] - maximum);
    sum += weight;
    for (let d = 0; d < output.length; d++) output[d] += weight * slot.value[d];
  });
  return { maximum, sum, output };
}

/** Softmax attention of one query; 0 where nothing is visible. */
export function attention(
  query: Float64Array,
  position: number,
  slots: readonly Slot[],
  scale: number,
): Float64Array {
  const { sum, output } = partialAttention(query, position, slots, scale);
  return sum === 0 ? output : output.map((value) => value / sum);
}

/** Natural log of the sum of exp(score) over visible slots; -Infinity where nothing is visible. */
export function logSumExp(
  query: Float64Array,
  position: number,
  slots: readonly Slot[],
  scale: number,
): number {
  const { maximum, sum } = partialAttention(query, position, slots, scale);
  return sum === 0 ? -Infinity : maximum + Math.log(sum);
}

/** Frequencies of a rotary embedding of `size` components. */
export function rotaryFrequencies(size: number, base = 10000): Float64Array {
  return Float64Array.from({ length: size / 2 }, (_, i) => base ** (-2 * i / size));
}

/** A head rotated to its position, by cos and sin of the whole angle. */
export function rotate(
  head: Float64Array,
  position: number,
  layout: "half" | "interleaved" | "none",
  frequencies: Float64Array,
): Float64Array {
  const out = head.slice();
  if (layout === "none") return out;
  const pairs = frequencies.length;
  for (let i = 0; i < pairs; i++) {
    const [a, b] = layout === "half" ? [i, i + pairs] : [2 * i, 2 * i + 1];
    const c = Math.cos(position * frequencies[i]);
    const s = Math.sin(position * frequencies[i]);
    out[a] = head[a] * c - head[b] * s;
    out[b] = head[b] * c + head[a] * s;
  }
  return out;
}

/** The table of (cos, sin) that ropeStore reads: 256 single positions, then every 256th up to `maxPositions`. */
export function ropeTable(frequencies: Float64Array, maxPositions: number): Float32Array {
  const positions = [
    ...Array.from({ length: 256 }, (_, i) => i),
    ...Array.from({ length: Math.ceil(maxPositions / 256) }, (_, i) => 256 * i),
  ];
  return Float32Array.from(
    positions.flatMap((position) =>
      Array.from(frequencies, (frequency) => [Math.cos(position * frequency), Math.sin(position * frequency)])
        .flat()
    ),
  );
}
