// Every core of linear attention with its definition in f64, for the laws.

import type { Core } from "../../lib/layers/mod.ts";
import {
  alibiDecays,
  cosFormer,
  deltaNet,
  diagAttention,
  gatedDeltaNet,
  gla,
  hybrid,
  lightningAttention,
  linearAttention,
  mamba2,
  normAttention,
  paperDecays,
  performer,
  retention,
  retentionDecays,
} from "../../lib/transforms/mod.ts";

import { performerDirections } from "../../lib/ops/performer_features.ts";
import {
  causalScores,
  type CoreRows,
  divide,
  dot,
  gated,
  headOf,
  type HeadShape,
  mapHeads,
  MAPS,
  recurrence,
  rmsRows,
  rotateConcat,
  rotateInterleaved,
  type Rows,
  sigmoid,
  silu,
  softplus,
  weighted,
} from "../oracles/linear_cores.ts";

/** A core and what it should put out. */
export interface LinearCoreCase {
  readonly name: string;
  readonly core: Core;
  /** Which inputs it takes beside queries, keys and values, with their widths. */
  readonly extra: { readonly outputGate?: number; readonly decay?: number; readonly beta?: number };
  readonly definition: (rows: CoreRows) => Rows;
}

/** Heads of the laws: grouped, of a size that is no power of two. */
export const SHAPE: HeadShape = { heads: 4, kvHeads: 2, headSize: 12 };
/** Angles of the layer's rotary embedding. */
export const THETAS: readonly number[] = Array.from({ length: 6 }, (_, i) => 100 ** (-i / 6));

const { heads, kvHeads, headSize } = SHAPE;
const WIDTH = heads * headSize;
const KEYS = kvHeads * headSize;
const MOST = 600;

/** Features: map, then rotation. */
function mapped(rows: Rows, map: string, rotated = true, scale = 1): Rows {
  return mapHeads(rows, headSize, (head, position) => {
    const features = MAPS[map](head).map((x) => x * scale);
    return rotated ? rotateInterleaved(features, position, THETAS) : features;
  });
}

/** Sums with a decay by KV head and position. */
function decayed({ q, k, v }: CoreRows, logs: readonly number[]): Rows {
  const scores = causalScores(q, k, SHAPE);
  return weighted(
    v,
    SHAPE,
    (i, j, head, g) => j > i ? 0 : scores(i, j, head, g) * Math.exp((i - j) * logs[g]),
  );
}

function lightning(formula: "alibi" | "paper"): LinearCoreCase {
  return {
    name: `lightning-attention ${formula}`,
    core: lightningAttention({ formula, layer: 1, layers: 3 }),
    extra: { outputGate: WIDTH },
    definition({ q, k, v, outputGate }) {
      const logs = (formula === "alibi" ? alibiDecays : paperDecays)(kvHeads, 1, 3);
      const sums = decayed({ q: mapped(q, "silu", false), k: mapped(k, "silu", false), v }, logs);
      return gated(rmsRows(sums, 1, 1e-6), outputGate, (x) => x);
    },
  };
}

function diag(score: "softmax" | "relu", block: number): LinearCoreCase {
  return {
    name: `diag-attention ${score} ${block}`,
    core: diagAttention({ block, score }),
    extra: {},
    definition({ q, k, v }) {
      const turn = (rows: Rows) =>
        mapHeads(rows, headSize, (head, position) => rotateInterleaved(head, position % block, THETAS));
      const scores = causalScores(turn(q), turn(k), SHAPE);
      const visible = (i: number, j: number) => j <= i && Math.floor(i / block) === Math.floor(j / block);
      const raw = (i: number, j: number, head: number, g: number) =>
        scores(i, j, head, g) / Math.sqrt(headSize);
      if (score === "relu") {
        const sums = weighted(
          v,
          SHAPE,
          (i, j, head, g) => visible(i, j) ? Math.max(0, raw(i, j, head, g)) : 0,
        );
        return rmsRows(sums, 1, 1e-6);
      }
      const power = (i: number, j: number, head: number, g: number) =>
        visible(i, j) ? Math.exp(raw(i, j, head, g)) : 0;
      return divide(weighted(v, SHAPE, power), heads, (i, head) => {
        const g = Math.floor(head * kvHeads / heads);
        return v.reduce((sum, _, j) => sum + power(i, j, head, g), 0);
      });
    },
  };
}

function norm(featureMap: "elu" | "1+elu"): LinearCoreCase {
  return {
    name: `norm-attention ${featureMap}`,
    core: normAttention({ featureMap }),
    extra: {},
    definition: ({ q, k, v }) =>
      rmsRows(weighted(v, SHAPE, causalScores(mapped(q, featureMap), mapped(k, featureMap), SHAPE)), 1, 1e-6),
  };
}

/** The sums of the weights of every row and head. */
function totals(q: Rows, k: Rows): (i: number, head: number) => number {
  const scores = causalScores(q, k, SHAPE);
  return (i, head) => {
    const g = Math.floor(head * kvHeads / heads);
    let sum = 0;
    for (let j = 0; j <= i; j++) sum += scores(i, j, head, g);
    return sum;
  };
}

/** Keys and values of whose recurrence the decay comes from data. */
function byState(kind: string, core: Core, gate: boolean): LinearCoreCase {
  return {
    name: kind,
    core,
    extra: { beta: kvHeads, ...(gate ? { decay: kvHeads } : {}), outputGate: WIDTH },
    definition({ q, k, v, beta, decay, outputGate }) {
      const scaled = mapped(q, "l2 silu", false, 1 / Math.sqrt(headSize));
      const o = recurrence(
        { q: scaled, k: mapped(k, "l2 silu", false), v },
        SHAPE,
        (i, g) => gate ? Math.exp(-softplus(decay![i][g])) : 1,
        (i, g, value, read) => sigmoid(beta![i][g]) * (value - read),
      );
      return gated(rmsRows(o, heads, 1e-6), outputGate, silu);
    },
  };
}

export const LINEAR_CORE_CASES: readonly LinearCoreCase[] = [
  norm("1+elu"),
  norm("elu"),
  diag("softmax", 64),
  diag("relu", 64),
  diag("softmax", 7),
  lightning("alibi"),
  lightning("paper"),
  {
    name: "linear-attention",
    core: linearAttention(),
    extra: {},
    definition({ q, k, v }) {
      const sums = weighted(v, SHAPE, causalScores(mapped(q, "1+elu"), mapped(k, "1+elu"), SHAPE));
      const [plainQ, plainK] = [q, k].map((rows) => mapped(rows, "1+elu", false));
      const total = totals(plainQ, plainK);
      return divide(sums, heads, (i, head) => total(i, head) + 1e-10);
    },
  },
  {
    name: "cosformer",
    core: cosFormer({ maxLength: MOST }),
    extra: {},
    definition({ q, k, v }) {
      const thetas = new Array<number>(headSize).fill(Math.PI / (2 * MOST));
      const features = (rows: Rows) =>
        mapHeads(rows, headSize, (head, position) => rotateConcat(MAPS.relu(head), position, thetas));
      const [a, b] = [features(q), features(k)];
      return divide(
        weighted(v, SHAPE, causalScores(a, b, SHAPE)),
        heads,
        (i, head) => Math.max(1e-4, totals(a, b)(i, head)),
      );
    },
  },
  {
    name: "performer",
    core: performer({ features: 32, seed: 3 }),
    extra: {},
    definition({ q, k, v }) {
      const directions = performerDirections(headSize, 32, 3);
      const features = (rows: Rows) =>
        mapHeads(mapped(rows, "identity"), headSize, (head) => {
          const x = head.map((one) => one * headSize ** -0.25);
          return Float64Array.from(
            { length: 32 },
            (_, f) =>
              Math.exp(
                x.reduce((sum, one, c) => sum + one * directions[c * 32 + f], 0) - dot(x, x) / 2,
              ) / Math.sqrt(32),
          );
        });
      const [a, b] = [features(q), features(k)];
      return divide(
        weighted(v, SHAPE, causalScores(a, b, SHAPE)),
        heads,
        totals(a, b),
      );
    },
  },
  {
    name: "retention",
    core: retention(),
    extra: { outputGate: WIDTH },
    definition({ q, k, v, outputGate }) {
      const scaled = mapped(q, "identity", true, 1 / Math.sqrt(headSize));
      const sums = decayed({ q: scaled, k: mapped(k, "identity"), v }, retentionDecays(kvHeads));
      return gated(rmsRows(sums, heads, 1e-6), outputGate, silu);
    },
  },
  {
    name: "gla",
    core: gla(),
    extra: { decay: KEYS, outputGate: WIDTH },
    definition({ q, k, v, decay, outputGate }) {
      const scaled = mapped(q, "identity", false, 1 / Math.sqrt(headSize));
      const o = recurrence(
        { q: scaled, k, v },
        SHAPE,
        (i, g, d) => Math.exp(-softplus(-decay![i][g * headSize + d]) / 16),
        (_i, _g, value) => value,
      );
      return gated(rmsRows(o, heads, 1e-6), outputGate, silu);
    },
  },
  {
    name: "mamba2",
    core: mamba2({ rates: [0.5, 2], stepBiases: [0.1, -0.2], skip: [1, -0.5] }),
    extra: { decay: kvHeads },
    definition({ q, k, v, decay }) {
      const steps = decay!.map((row) => row.map((x, g) => softplus(x + [0.1, -0.2][g])));
      const o = recurrence(
        { q, k, v },
        SHAPE,
        (i, g) => Math.exp(-[0.5, 2][g] * steps[i][g]),
        (i, g, value) => steps[i][g] * value,
      );
      return o.map((row, i) =>
        row.map((x, c) => {
          const g = Math.floor(Math.floor(c / headSize) * kvHeads / heads);
          return x + [1, -0.5][g] * headOf(v[i], g, headSize)[c % headSize];
        })
      );
    },
  },
  byState("delta-net", deltaNet(), false),
  byState("gated-delta-net", gatedDeltaNet(), true),
  ...[1, 16, 64].map((window): LinearCoreCase => ({
    name: `hybrid window ${window}`,
    core: hybrid({ window, gate: 0.3 }),
    extra: {},
    definition({ q, k, v }) {
      const [turnedQ, turnedK] = [q, k].map((rows) => mapped(rows, "identity"));
      const [a, b] = [turnedQ, turnedK].map((rows) => mapHeads(rows, headSize, MAPS.hedgehog));
      const raw = causalScores(turnedQ, turnedK, SHAPE);
      const older = causalScores(a, b, SHAPE);
      const most = v.map((_, i) =>
        Array.from({ length: heads }, (_, head) => {
          const g = Math.floor(head * kvHeads / heads);
          const scores = Array.from({ length: Math.min(window, i + 1) }, (_, d) => raw(i, i - d, head, g));
          return Math.max(...scores);
        })
      );
      const weight = (i: number, j: number, head: number, g: number): number => {
        if (j > i) return 0;
        if (j <= i - window) return older(i, j, head, g);
        return 0.3 * Math.exp((raw(i, j, head, g) - most[i][head]) / Math.sqrt(headSize));
      };
      return divide(weighted(v, SHAPE, weight), heads, (i, head) => {
        const g = Math.floor(head * kvHeads / heads);
        return v.reduce((sum, _, j) => sum + weight(i, j, head, g), 0);
      });
    },
  })),
];
