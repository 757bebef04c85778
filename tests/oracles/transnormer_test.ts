// The oracle's attention against vectors computed independently, for q, k and v made of sines.

import { assertAlmostEquals } from "@std/assert";
import {
  diagAttentionOracle,
  FEATURES,
  linearSums,
  normedRows,
  rotateConcat,
  rotatePairs,
  type Rows,
  slopesOracle,
} from "./transnormer_attention.ts";

const fill = (shift: number): Rows =>
  Array.from(
    { length: 6 },
    (_, i) => Float64Array.from({ length: 8 }, (_, j) => Math.sin(0.7 * i + 1.3 * j + shift)),
  );

const QKV = { q: fill(0.5), k: fill(1.1), v: fill(2.3) };
const rotate = rotatePairs("interleaved", [1, 10000 ** (-2 / 4)]);
const additive = { kind: "rms", epsilon: 1e-8, additive: true } as const;

function assertRow(got: Float64Array, want: readonly number[]): void {
  want.forEach((value, i) => assertAlmostEquals(got[i], value, 1e-5));
}

function assertSum(got: Rows, want: number): void {
  assertAlmostEquals(got.reduce((sum, row) => sum + row.reduce((a, b) => a + b, 0), 0), want, 1e-5);
}

/** Feature map, whether rotated, the last row and the sum of all of them, and the sum of the bidirectional form. */
const NORM_ATTENTION: [string, boolean, number[], number, number][] = [
  [
    "1+elu",
    false,
    [-1.50798, -0.617504, 1.177617, 1.247526, 0.082826, -1.145639, -0.69574, 0.77342],
    -9.269605,
    -10.207012,
  ],
  [
    "1+elu",
    true,
    [-1.402091, -0.030981, 1.385516, 0.772229, -1.226961, -0.334749, 1.047872, 0.895358],
    -4.267175,
    -4.11669,
  ],
  [
    "elu",
    false,
    [-1.327736, 0.789267, 1.749992, 0.146974, -0.949682, -0.59797, 0.629769, 0.934895],
    -6.250406,
    -5.408375,
  ],
  [
    "elu",
    true,
    [-1.34213, 0.684996, 1.708601, 0.229101, -0.964615, -0.680431, 0.600587, 1.001743],
    -6.714218,
    -7.188289,
  ],
];

Deno.test("linearSums() under a norm gives NormAttention's reference vectors", () => {
  for (const [map, rotated, row, sum, both] of NORM_ATTENTION) {
    const spec = { heads: 2, map: FEATURES[map], ...(rotated ? { rotate } : {}) };
    const causal = normedRows(linearSums(QKV, { ...spec, causal: true }), additive);
    assertRow(causal[5], row);
    assertSum(causal, sum);
    assertSum(normedRows(linearSums(QKV, { ...spec, causal: false }), additive), both);
  }
});

Deno.test("diagAttentionOracle() gives DiagAttention's reference vectors", () => {
  const spec = { heads: 2, causal: true, rotate };
  const soft = diagAttentionOracle(QKV, spec, { block: 4, score: "softmax", scale: 0.5 });
  assertRow(soft[5], [
    -0.678907,
    0.444406,
    0.916662,
    0.046007,
    -0.887117,
    -0.535131,
    0.600823,
    0.85657,
  ]);
  assertRow(soft[2], [
    0.10253,
    -0.789703,
    -0.525019,
    0.508819,
    0.756521,
    -0.188285,
    -0.857253,
    -0.270343,
  ]);
  assertSum(soft, -3.193642);
  const relu = normedRows(diagAttentionOracle(QKV, spec, { block: 4, score: "relu", scale: 0.5 }), additive);
  assertRow(relu[5], [-1.222214, 0.80114, 1.650822, 0.082046, -1.068411, -0.638268, 0.726939, 1.027178]);
  assertSum(relu, -5.699365);
});

Deno.test("linearSums() with decays, a norm and a gate gives TransNormerLLM's reference vectors", () => {
  const decays = slopesOracle(2).map((slope) => Math.exp(-slope * (1 + 1e-5)));
  assertAlmostEquals(decays[0], 0.93941248, 1e-8);
  assertAlmostEquals(decays[1], 0.99610133, 1e-8);
  const thetas = Array.from({ length: 8 }, (_, j) => 10000 ** (-2 * j / 8));
  const cases = [
    [
      {},
      [-1.123237, 0.586376, -0.662641, -0.231717, 0.145903, -0.479131, 0.388931, -0.4737],
      -11.118427,
    ],
    [
      { rotate: rotateConcat(thetas) },
      [-1.176534, 0.320361, -0.621932, -0.503946, 0.158065, -0.51907, 0.42135, -0.513186],
      -9.707228,
    ],
  ] as const;
  for (const [rotation, row, sum] of cases) {
    const sums = linearSums(QKV, { heads: 2, causal: true, map: FEATURES.silu, ...rotation }, decays);
    const gate = fill(3.7);
    const out = normedRows(sums, { kind: "rms", epsilon: 1e-6 })
      .map((normed, t) => normed.map((x, i) => x * gate[t][i]));
    assertRow(out[5], row);
    assertSum(out, sum);
  }
});

Deno.test("slopesOracle() gives the released decays of the first layer", () => {
  const first = (heads: number) => slopesOracle(heads).map((slope) => Math.exp(-slope * (1 + 1e-5)));
  const cases: [number, number, number][] = [[8, 0.606528, 0.996101], [16, 0.493065, 0.996101], [
    32,
    0.43132,
    0.996101,
  ], [20, 0.493065, 0.742818]];
  for (const [heads, head, last] of cases) {
    assertAlmostEquals(first(heads)[0], head, 1e-6);
    assertAlmostEquals(first(heads).at(-1)!, last, 1e-6);
  }
  assertAlmostEquals(Math.min(...first(20)), 0.43132, 1e-6);
});
