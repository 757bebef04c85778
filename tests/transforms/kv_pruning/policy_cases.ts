// Policies beside what their papers say, as the oracle takes it.

import {
  adaKv,
  composePolicies,
  expectedAttention,
  fastKv,
  h2o,
  keyDiff,
  knorm,
  type KvPolicy,
  perLayer,
  pyramidKv,
  randomPolicy,
  snapKv,
  streamingLlm,
  tova,
} from "../../../lib/transforms/mod.ts";
import { rotaryFrequencies, rotate } from "../../oracles/attention.ts";
import type { OracleEviction, OracleLayer, OraclePolicy, PromptView } from "./policy_oracle.ts";

/** A policy and its oracle. */
export interface PolicyCase {
  readonly name: string;
  readonly policy: KvPolicy;
  readonly oracle: OraclePolicy;
  /** Whether a second turn of the lengths that tests use fits its budget. Default: yes. */
  readonly again?: boolean;
  /** Whether different tokens may have the same score, exactly. Default: no. */
  readonly ties?: boolean;
}

/** Layers of the Llamas that cases run on. */
export const LAYERS = 3;
/** Rotation of heads of 8. */
const FREQUENCIES = rotaryFrequencies(8);
const KEEP = 0.6;
const LOW = 0.4;

type Turn = Parameters<OraclePolicy["layer"]>[0];

/** Slots of a layer when a share of a turn's are dealt out evenly, the odd ones to the first layers. */
function slotsOf(keep: number, { layer, tokens, maxTokens }: Turn): number {
  const total = Math.floor(keep * (LAYERS * (tokens + maxTokens)));
  return Math.floor(total / LAYERS) + (layer < total % LAYERS ? 1 : 0);
}

/** The prompt gets what new tokens leave. */
function promptOnly(keep: number, window: number, sinks = 0) {
  return (turn: Turn): OracleLayer => {
    const stored = Math.min(turn.tokens, slotsOf(keep, turn) - (turn.maxTokens - 1));
    const keepSlots = stored - Math.min(window, turn.tokens);
    return { window, keepSlots, sinks: turn.later ? 0 : sinks };
  };
}

/** The prompt leaves one slot for the next token. */
function evicting(keep: number, window: number) {
  return (turn: Turn): OracleLayer => {
    const capacity = Math.min(turn.tokens + turn.maxTokens - 1, slotsOf(keep, turn));
    const stored = Math.min(turn.tokens, capacity - 1);
    return { window, keepSlots: stored - Math.min(window, turn.tokens), capacity };
  };
}

/** As promptOnly, with budgets that fall from layer to layer in a straight line. */
function pyramid(window: number, beta: number) {
  return ({ layer, tokens, maxTokens }: Turn): OracleLayer => {
    const fixed = window + maxTokens - 1;
    const total = Math.floor(KEEP * (LAYERS * (tokens + maxTokens))) - LAYERS * fixed;
    const c = total / LAYERS;
    if (tokens < 2 * c) throw new Error("The case is meant for a pyramid");
    const low = Math.floor(c / beta);
    const high = Math.min(2 * c - low, tokens - window);
    const line = Array.from(
      { length: LAYERS },
      (_, l) => Math.floor(high - l * (high - (2 * c - high)) / (LAYERS - 1)),
    );
    const rest = total - line.reduce((a, b) => a + b, 0);
    return { window, keepSlots: line[layer] + (layer < rest ? 1 : 0) };
  };
}

const sum = (count: number, at: (i: number) => number) => {
  let all = 0;
  for (let i = 0; i < count; i++) all += at(i);
  return all;
};

/** Sum over the newest rows of what each KV head's query heads pay, as a mean. */
function paidBy(rows: number) {
  return (view: PromptView): number[][] => {
    const scored = Math.min(rows, view.positions.length);
    const first = view.positions.length - scored;
    return Array.from(
      { length: view.kvHeads },
      (_, head) =>
        view.positions.map((_, j) =>
          sum(
            scored,
            (i) => sum(view.group, (h) => view.paid(first + i, head * view.group + h, j)) / view.group,
          )
        ),
    );
  };
}

/** Pooled over neighbours before the window. */
function pooled(window: number, kernel: number, pool: "max" | "mean") {
  return (view: PromptView): number[][] => {
    const context = view.positions.length - Math.min(window, view.positions.length);
    return paidBy(window)(view).map((own) =>
      own.map((_, j) => {
        const near = own.slice(0, context).slice(Math.max(0, j - (kernel - 1) / 2), j + (kernel - 1) / 2 + 1);
        return pool === "max" ? Math.max(...near) : near.reduce((a, b) => a + b, 0) / kernel;
      })
    );
  };
}

const length = (vector: Float64Array) => Math.hypot(...vector);

function cosineToMean(keys: readonly Float64Array[]): number[] {
  const mean = keys[0].map((_, d) => sum(keys.length, (j) => keys[j][d] / length(keys[j])) / keys.length);
  return keys.map((key) => sum(key.length, (d) => key[d] * mean[d]) / length(key) / length(mean));
}

/** MurmurHash3's last step. */
function mix(x: number): number {
  let h = (x + 0x9e3779b9) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Mean rotation of a vector over the positions after `position`. */
function meanRotation(vector: Float64Array, position: number, future: number): Float64Array {
  const mean = new Float64Array(vector.length);
  for (let step = 1; step <= future; step++) {
    rotate(vector, position + step, "half", FREQUENCIES).forEach((x, d) => mean[d] += x / future);
  }
  return mean;
}

/** What queries like those of the prompt would pay from the next positions on. */
function expected(sinks: number, future: number, epsilon?: number) {
  return ({ positions, queries, keys, values, heads, group }: PromptView): number[][] => {
    const from = positions.findIndex((position) => position >= sinks);
    const attention = Array.from({ length: heads }, (_, head) => {
      const own = queries.slice(from).map((row) => row[head]);
      const size = own[0].length;
      const mean = Float64Array.from(
        { length: size },
        (_, d) => sum(own.length, (i) => own[i][d]) / own.length,
      );
      // Rows, then columns of the covariance: both are rotated alike.
      const last = positions.at(-1)!;
      const rows = Array.from(
        { length: size },
        (_, a) =>
          Float64Array.from(
            { length: size },
            (_, b) => sum(own.length, (i) => (own[i][a] - mean[a]) * (own[i][b] - mean[b])) / own.length,
          ),
      );
      const half = rows.map((row) => meanRotation(row, last, future));
      const columns = half[0].map((_, b) => b);
      const covariance = [...columns].map((b) =>
        meanRotation(Float64Array.from(half, (row) => row[b]), last, future)
      );
      const turned = meanRotation(mean, last, future);
      const z = keys[Math.floor(head / group)].slice(from).map((key) =>
        sum(size, (a) => turned[a] * key[a]) / Math.sqrt(size) +
        sum(size, (b) => sum(size, (a) => key[a] * covariance[b][a] * key[b])) / (2 * size)
      );
      const all = z.reduce((total, value) => total + Math.exp(value), 0);
      return [...Array<number>(from).fill(0), ...z.map((value) => Math.exp(value) / all)];
    });
    return values.map((own, kvHead) =>
      own.map((value, j) =>
        (sum(group, (h) => attention[kvHead * group + h][j]) / group + (epsilon ?? 0)) *
        (epsilon === undefined ? 1 : length(value))
      )
    );
  };
}

const SNAP = { window: 6, kernel: 3 };
const H2O_EVICTS: OracleEviction = { score: "sum", window: 5, sinks: 0 };
const TOVA_EVICTS: OracleEviction = { score: "last", window: 1, sinks: 0 };
const lastRow = (view: PromptView): number[][] => {
  const heads = paidBy(1)(view);
  return [view.positions.map((_, j) => sum(heads.length, (h) => heads[h][j]))];
};

/** Every policy once, some with other settings too. */
export const POLICY_CASES: readonly PolicyCase[] = [
  {
    name: "snapKv",
    policy: snapKv({ keep: KEEP, ...SNAP, pool: "max" }),
    ties: true,
    oracle: { perKvHead: true, score: pooled(6, 3, "max"), layer: promptOnly(KEEP, 6) },
  },
  {
    name: "snapKv, mean, in slots",
    policy: snapKv({ cacheTokens: 66, window: 9, kernel: 5, pool: "mean" }),
    oracle: {
      perKvHead: true,
      score: pooled(9, 5, "mean"),
      layer: ({ tokens, maxTokens }) => ({
        window: 9,
        keepSlots: Math.min(tokens, 66 - (maxTokens - 1)) - Math.min(9, tokens),
      }),
    },
  },
  {
    name: "h2o",
    policy: h2o({ keep: LOW, recent: 5 }),
    oracle: {
      perKvHead: true,
      score: (view) => paidBy(Infinity)(view),
      layer: evicting(LOW, 5),
      evicts: H2O_EVICTS,
    },
  },
  {
    name: "h2o, heavy",
    policy: h2o({ heavy: 20, recent: 5 }),
    oracle: {
      perKvHead: true,
      score: (view) => paidBy(Infinity)(view),
      layer: ({ tokens, maxTokens }) => ({
        window: 5,
        keepSlots: Math.min(tokens, 25) - Math.min(tokens, 5),
        capacity: Math.min(26, tokens + maxTokens - 1),
      }),
      evicts: H2O_EVICTS,
    },
  },
  {
    name: "tova",
    policy: tova({ keep: LOW }),
    oracle: { perKvHead: false, score: lastRow, layer: evicting(LOW, 1), evicts: TOVA_EVICTS },
  },
  ...(["original", "relative"] as const).map((positions) => ({
    name: `streamingLlm, ${positions}`,
    policy: streamingLlm({ keep: LOW, sinks: 3, positions }),
    oracle: {
      perKvHead: false,
      layer: (turn: Turn) => {
        const capacity = slotsOf(LOW, turn);
        const stored = Math.min(turn.tokens, capacity - 1);
        const sinks = turn.later ? 0 : 3;
        return { window: Math.max(1, stored - sinks), keepSlots: Math.min(sinks, stored - 1), capacity };
      },
      evicts: { score: "position", window: 1, sinks: 3 },
      relativeSinks: positions === "relative" ? 3 : 0,
    } as const,
  })),
  {
    name: "knorm",
    policy: knorm({ keep: KEEP }),
    oracle: {
      perKvHead: true,
      score: ({ keys }) => keys.map((own) => own.map((key) => -length(key))),
      layer: promptOnly(KEEP, 1),
    },
  },
  {
    name: "keyDiff",
    policy: keyDiff({ keep: KEEP, window: 3 }),
    oracle: {
      perKvHead: true,
      score: ({ keys }) => keys.map((own) => cosineToMean(own).map((cosine) => -cosine)),
      layer: promptOnly(KEEP, 3),
    },
  },
  {
    name: "randomPolicy",
    policy: randomPolicy({ keep: KEEP, seed: 7 }),
    oracle: {
      perKvHead: true,
      score: ({ layer, positions, kvHeads }) =>
        Array.from(
          { length: kvHeads },
          (_, head) => positions.map((position) => mix(mix(mix(mix(7) ^ layer) ^ head) ^ position) >>> 8),
        ),
      layer: promptOnly(KEEP, 1),
    },
  },
  {
    name: "pyramidKv",
    policy: pyramidKv({ keep: KEEP, window: 6, kernel: 3, pool: "mean", beta: 5 }),
    oracle: { perKvHead: true, score: pooled(6, 3, "mean"), layer: pyramid(6, 5) },
  },
  {
    name: "fastKv",
    policy: fastKv({ keep: KEEP, window: 5, kernel: 3, startLayer: 1, tspRate: 0.4 }),
    oracle: {
      perKvHead: true,
      score: pooled(5, 3, "mean"),
      layer: (turn) => {
        const stored = Math.min(turn.rows, slotsOf(KEEP, turn) - (turn.maxTokens - 1));
        const left = Math.floor(0.4 * turn.tokens);
        return { window: 5, keepSlots: stored - 5, ...(turn.layer === 1 ? { keepRows: left } : {}) };
      },
    },
  },
  {
    name: "adaKv",
    policy: adaKv({ keep: KEEP, window: 6, kernel: 3, pool: "mean", share: 0.3 }),
    oracle: { perKvHead: true, score: pooled(6, 3, "mean"), layer: promptOnly(KEEP, 6), spread: 0.3 },
  },
  {
    name: "adaKv over pyramidKv",
    policy: adaKv({ base: pyramidKv({ keep: KEEP, window: 6, kernel: 3, pool: "mean", beta: 5 }) }),
    oracle: { perKvHead: true, score: pooled(6, 3, "mean"), layer: pyramid(6, 5), spread: 0.2 },
  },
  {
    name: "adaKv, then h2o",
    policy: composePolicies(adaKv({ keep: LOW, window: 6, kernel: 3, pool: "mean" }), h2o({ recent: 5 })),
    oracle: {
      perKvHead: true,
      score: pooled(6, 3, "mean"),
      noted: paidBy(6),
      layer: evicting(LOW, 6),
      spread: 0.2,
      evicts: H2O_EVICTS,
    },
  },
  {
    name: "snapKv, then tova",
    policy: composePolicies(snapKv({ keep: LOW, ...SNAP, pool: "mean" }), tova()),
    oracle: {
      perKvHead: true,
      score: pooled(6, 3, "mean"),
      layer: evicting(LOW, 6),
      evicts: TOVA_EVICTS,
    },
  },
  {
    name: "knorm, then h2o with the budget",
    policy: composePolicies(knorm(), h2o({ keep: LOW, recent: 5 })),
    oracle: {
      perKvHead: true,
      score: ({ keys }) => keys.map((own) => own.map((key) => -length(key))),
      noted: paidBy(1),
      layer: evicting(LOW, 1),
      evicts: H2O_EVICTS,
    },
  },
  {
    name: "perLayer",
    policy: perLayer((layer) => layer === 0 ? undefined : h2o({ keep: LOW, recent: 5 })),
    oracle: {
      perKvHead: true,
      score: (view) => paidBy(Infinity)(view),
      layer: (turn) => turn.layer === 0 ? { window: 1, keepSlots: turn.tokens - 1 } : evicting(LOW, 5)(turn),
      evicts: H2O_EVICTS,
    },
  },
  {
    name: "expectedAttention",
    policy: expectedAttention({ keep: KEEP, sinks: 3, future: 50, epsilon: 0.01 }),
    oracle: { perKvHead: true, score: expected(3, 50, 0.01), layer: promptOnly(KEEP, 1, 3) },
  },
  {
    name: "adaKv over expectedAttention",
    policy: adaKv({
      base: expectedAttention({ keep: KEEP, sinks: 0, window: 4, future: 300, valueNorms: false }),
    }),
    oracle: { perKvHead: true, score: expected(0, 300), layer: promptOnly(KEEP, 4), spread: 0.2 },
  },
];
