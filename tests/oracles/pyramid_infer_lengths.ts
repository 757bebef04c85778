// Lengths of PyramidInfer by its recurrence, and choices among scores by sorting: the parts of the oracle that know no
// model.

/** Settings of PyramidInfer, every one said. */
export interface PyramidInferSettings {
  readonly recentRatio: number;
  readonly prefillDecay: number;
  /** `geometric` is what a small budget makes of it: the ratio d in every layer, down to the sinks. */
  readonly prefillDecayStrategy: "cosine" | "constant" | "linear" | "geometric";
  readonly minContext: number;
  readonly sinks: number;
  readonly distanceWeight: number;
  readonly interval: number;
  readonly genDecay: number;
  readonly genDecayStrategy: "cosine" | "constant" | "linear";
  readonly genCompress: number;
  readonly genBlock: number;
  readonly sameLayer: boolean;
  readonly rowCap?: number | undefined;
  readonly startLayer: number;
  readonly perKvHead: boolean;
  /** Whether tokens of the prompt get a score that they may be evicted by. Default: where there are caps. */
  readonly budget?: boolean;
  /** Most tokens that a turn may add to each layer. */
  readonly caps?: readonly number[] | undefined;
}

/** The released settings for 7B. */
export const RELEASED: PyramidInferSettings = {
  recentRatio: 0.2,
  prefillDecay: 0.9,
  prefillDecayStrategy: "cosine",
  minContext: 64,
  sinks: 4,
  distanceWeight: 1.2,
  interval: 1,
  genDecay: 0.1,
  genDecayStrategy: "cosine",
  genCompress: 0.9,
  genBlock: 16,
  sameLayer: false,
  startLayer: 0,
  perKvHead: false,
};

/** Share that layer l of n keeps. */
export function shareOf(strategy: string, d: number, l: number, n: number): number {
  switch (strategy) {
    case "cosine":
      return d + (1 - d) * (1 + Math.cos(Math.PI * l / n)) / 2;
    case "linear":
      return d + (1 - d) * l / n;
    default:
      return d;
  }
}

/** What the lengths of a turn depend on. */
export interface TurnShape {
  readonly tokens: number;
  readonly maxTokens: number;
  /** Tokens in each layer before. */
  readonly past: readonly number[];
  /** Whether it is not the first: its rows hold no sinks. */
  readonly later: boolean;
}

/** Lengths of a turn. */
export interface TurnLengths {
  /** L_0 ... L_N: rows that enter each layer, and those after the last. */
  readonly rows: readonly number[];
  /** Rows whose keys and values each layer stores. */
  readonly slots: readonly number[];
  /** Most tokens that the turn has in each layer at once. */
  readonly capacities: readonly number[];
}

type LengthSettings = Omit<PyramidInferSettings, "distanceWeight" | "perKvHead" | "rowCap" | "budget">;

/** The recurrence of prefill, and the growth of every layer step by step. */
export function lengthsOf(settings: LengthSettings, layers: number, turn: TurnShape): TurnLengths {
  const { recentRatio, prefillDecay, prefillDecayStrategy, interval, startLayer, sameLayer, caps } = settings;
  const { tokens, later } = turn;
  const recent = Math.floor(recentRatio * tokens);
  const n = recent + 1;
  const m = Math.min(settings.minContext, tokens - 1 - recent);
  const rows = [tokens];
  for (let l = 0; l < layers; l++) {
    const context = rows[l] - n;
    let k = context;
    const level = l - startLayer;
    if (level >= 0 && prefillDecayStrategy === "geometric") {
      const least = Math.min(context, later ? 0 : settings.sinks);
      k = Math.max(least, Math.floor(context * prefillDecay));
    } else if (level >= 0 && level % interval === 0) {
      const ratio = shareOf(prefillDecayStrategy, prefillDecay, level, layers - startLayer);
      if (context > m && ratio < 1) {
        k = Math.floor(context * ratio);
        if (k <= m) k = context;
      }
    }
    rows.push(k + n);
  }
  const uncapped = Array.from({ length: layers }, (_, l) => sameLayer ? rows[l + 1] : rows[l]);
  // The first new token needs a slot.
  const room = turn.maxTokens > 1 ? 1 : 0;
  const slots = uncapped.map((length, l) => Math.min(length, (caps?.[l] ?? Infinity) - room));
  const needs = growth(settings, layers, turn, uncapped);
  return { rows, slots, capacities: needs.map((need, l) => Math.min(need, caps?.[l] ?? Infinity)) };
}

/** Most tokens of the turn in each layer if no layer but the first had a cap, which moves the window of all. */
function growth(
  settings: LengthSettings,
  layers: number,
  { maxTokens, past }: TurnShape,
  start: readonly number[],
): number[] {
  const { recentRatio, genBlock, genCompress, genDecay, genDecayStrategy, startLayer, caps } = settings;
  const cap = past[0] + (caps?.[0] ?? Infinity);
  let first = past[0] + Math.min(start[0], cap - past[0] - (maxTokens > 1 ? 1 : 0));
  let waiting = 0; // Tokens behind the mark, the same in all layers.
  const lengths = [...start];
  const most = [...start];
  const keeps = lengths.map((_, l) =>
    l < startLayer ? genBlock : Math.max(
      1,
      Math.floor(
        genBlock * genCompress * shareOf(genDecayStrategy, genDecay, l - startLayer, layers - startLayer),
      ),
    )
  );
  for (let row = 1; row < maxTokens; row++) {
    first = Math.min(first, cap - 1);
    const recent = Math.floor(recentRatio * (first + 1));
    first++;
    waiting++;
    lengths.forEach((_, l) => most[l] = Math.max(most[l], ++lengths[l]));
    if (waiting - recent >= genBlock) {
      first -= genBlock - keeps[0];
      lengths.forEach((_, l) => lengths[l] -= genBlock - keeps[l]);
      waiting = recent;
    }
  }
  return most;
}

/**
 * Indices of the `count` largest, ascending; of equal ones the first. `gap` is how far, relatively, the last that is taken
 * stands over the first that is not: Infinity where nothing is chosen, 0 for equal ones.
 */
export function topIndices(scores: readonly number[], count: number): { indices: number[]; gap: number } {
  const order = [...scores.keys()].sort((a, b) =>
    scores[a] === scores[b] ? a - b : scores[b] > scores[a] ? 1 : -1
  );
  const last = scores[order[count - 1]];
  const next = scores[order[count]];
  const chosen = count > 0 && count < scores.length;
  const forced = chosen && last === next && (last === Infinity || last > 1e38);
  const gap = !chosen || forced || last === Infinity ? Infinity : (last - next) / last;
  return { indices: order.slice(0, count).sort((a, b) => a - b), gap };
}

/** Index of the largest number, the first of equal ones, and its lead. */
export function largestIndex(values: Float64Array): { index: number; margin: number } {
  const { indices: [index] } = topIndices([...values], 1);
  const rest = values.reduce((most, value, i) => i === index ? most : Math.max(most, value), -Infinity);
  return { index, margin: values[index] - rest };
}
