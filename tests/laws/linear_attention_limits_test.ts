// Linear attention over long texts, with extreme inputs, and what its norm does not see.

import { assert, assertLess } from "@std/assert";
import {
  attend,
  deltaNet,
  gla,
  lightningAttention,
  linearAttention,
  mamba2,
  normAttention,
} from "../../mod.ts";
import type { Core } from "../../lib/layers/mod.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import {
  mapHeads,
  MAPS,
  recurrence,
  rmsRows,
  type Rows,
  sigmoid,
  softplus,
} from "../oracles/linear_cores.ts";
import { alibiDecays } from "../../lib/transforms/mod.ts";
import { LINEAR_CORE_CASES, SHAPE } from "./linear_core_cases.ts";

const gpu = await sharedGpu();
const LONG = { heads: 2, kvHeads: 1, headSize: 8 };
const TOKENS = 8192;
const MAKERS = { query: 16, key: 8, value: 8, beta: 1, decay: 8 };
type Name = keyof typeof MAKERS;

function rowsOf(data: Float32Array, width: number): Rows {
  return Array.from(
    { length: data.length / width },
    (_, i) => Float64Array.from(data.subarray(i * width, (i + 1) * width)),
  );
}

interface LongCase {
  readonly name: string;
  readonly core: Core;
  readonly extra: readonly Name[];
  /** Widths that differ from those of {@linkcode MAKERS}. */
  readonly widths?: Partial<Record<Name, number>>;
  readonly definition: (rows: Record<Name, Rows>) => Rows;
}

const keep = (_i: number, _g: number, value: number) => value;
const map = (rows: Rows, name: string, scale = 1) =>
  mapHeads(rows, 8, (head) => MAPS[name](head).map((x) => x * scale));

const LONG_CASES: readonly LongCase[] = [
  {
    name: "norm-attention",
    core: normAttention(),
    extra: [],
    definition: ({ query, key, value }) =>
      rmsRows(
        recurrence({ q: map(query, "1+elu"), k: map(key, "1+elu"), v: value }, LONG, () => 1, keep),
        1,
        1e-6,
      ),
  },
  {
    name: "linear-attention",
    core: linearAttention(),
    extra: [],
    definition({ query, key, value }) {
      const [q, k] = [map(query, "1+elu"), map(key, "1+elu")];
      const ones = key.map((row) => row.map(() => 1));
      const sums = recurrence({ q, k, v: value }, LONG, () => 1, keep);
      const weights = recurrence({ q, k, v: ones }, LONG, () => 1, keep);
      return sums.map((row, i) => row.map((x, c) => x / (weights[i][c] + 1e-10)));
    },
  },
  {
    name: "lightning-attention",
    core: lightningAttention({ layer: 2, layers: 3 }),
    extra: [],
    definition({ query, key, value }) {
      const decay = Math.exp(alibiDecays(1, 2, 3)[0]);
      return rmsRows(
        recurrence({ q: map(query, "silu"), k: map(key, "silu"), v: value }, LONG, () => decay, keep),
        1,
        1e-6,
      );
    },
  },
  {
    name: "delta-net",
    core: deltaNet(),
    extra: ["beta"],
    definition: ({ query, key, value, beta }) =>
      rmsRows(
        recurrence(
          { q: map(query, "l2 silu", 1 / Math.sqrt(8)), k: map(key, "l2 silu"), v: value },
          LONG,
          () => 1,
          (i, g, x, read) => sigmoid(beta[i][g]) * (x - read),
        ),
        2,
        1e-6,
      ),
  },
  {
    name: "gla",
    core: gla(),
    extra: ["decay"],
    definition: ({ query, key, value, decay }) =>
      rmsRows(
        recurrence(
          { q: map(query, "identity", 1 / Math.sqrt(8)), k: key, v: value },
          LONG,
          (i, _g, d) => Math.exp(-softplus(-decay[i][d]) / 16),
          keep,
        ),
        2,
        1e-6,
      ),
  },
  {
    name: "mamba2",
    core: mamba2({ rates: [0.01] }),
    extra: ["decay"],
    widths: { decay: 1 },
    definition: ({ query, key, value, decay }) =>
      recurrence(
        { q: query, k: key, v: value },
        LONG,
        (i) => Math.exp(-0.01 * softplus(decay[i][0])),
        (i, _g, x) => softplus(decay[i][0]) * x,
      ),
  },
];

for (const { name, core, extra, widths, definition } of LONG_CASES) {
  Deno.test(`${name} drifts by less than 2e-5 of a row's largest value from f64 over ${TOKENS} tokens`, async () => {
    const all = { ...MAKERS, ...widths };
    const data = Object.fromEntries(
      (Object.keys(all) as Name[]).map((part, i) => [part, randomArray(TOKENS * all[part], 31 + i, 1.5)]),
    ) as Record<Name, Float32Array>;
    const want = definition(
      Object.fromEntries(
        (Object.keys(all) as Name[]).map((part) => [part, rowsOf(data[part], all[part])]),
      ) as Record<
        Name,
        Rows
      >,
    );
    const { query, key, value } = data;
    const more = Object.fromEntries(extra.map((part) => [part, data[part]]));
    const got = await attend(gpu, core, { query, key, value, ...more }, LONG);
    let worst = 0;
    want.forEach((row, i) => {
      const most = row.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      row.forEach((x, c) => worst = Math.max(worst, Math.abs(got[i * 16 + c] - x) / most));
    });
    assertLess(worst, 2e-5);
  });
}

for (const { name, core, extra } of LINEAR_CORE_CASES) {
  Deno.test(`${name} gives numbers for extreme inputs, in chunks and token by token`, async () => {
    const { heads, kvHeads, headSize } = SHAPE;
    const tokens = 70;
    // What f16 can hold, both signs, zeros, and what is hardly there.
    const values = [60000, -60000, 0, 1e-30, -1e-30, 1];
    const widths = { query: heads * headSize, key: kvHeads * headSize, value: kvHeads * headSize, ...extra };
    const inputs = Object.fromEntries(
      Object.entries(widths).map(([part, width], k) => [
        part,
        Float32Array.from(
          { length: tokens * width },
          (_, i) => values[(i * 7 + (i >> 4) + k) % values.length],
        ),
      ]),
    ) as unknown as Parameters<typeof attend>[2];
    for (const sliceRows of [undefined, 8]) {
      const got = await attend(gpu, core, inputs, sliceRows === undefined ? SHAPE : { ...SHAPE, sliceRows });
      assert(got.every(Number.isFinite), `${sliceRows ?? "all"} tokens at a time`);
    }
  });
}

Deno.test("NormAttention does not see a factor of a row's features, nor one of all keys or all values", async () => {
  const shape = { heads: 2, kvHeads: 2, headSize: 8 };
  const tokens = 40;
  const [query, key, value] = [1, 2, 3].map((seed) =>
    randomArray(tokens * 16, seed, 1).map((x) => Math.abs(x) + 1)
  );
  const core = normAttention({ featureMap: "relu" });
  const plain = await attend(gpu, core, { query, key, value }, shape);
  const scaled = (data: Float32Array, by: (row: number) => number) => data.map((x, i) => x * by(i >> 4));
  for (
    const inputs of [
      { query: scaled(query, (row) => 2 ** (row % 9 - 4)), key, value },
      { query, key: scaled(key, () => 64), value },
      { query, key, value: scaled(value, () => 1 / 8) },
    ]
  ) {
    const got = await attend(gpu, core, inputs, shape);
    got.forEach((x, i) => assertLess(Math.abs(x - plain[i]), 2e-5));
  }
});
