// NormAttention and TransNormerLLM's attention from features, rotation and decay to the norm, against vectors that were
// computed apart from this project, in both forms.

import { assert, assertThrows } from "@std/assert";
import { lower } from "../../lib/graph/mod.ts";
import { featureMap } from "../../lib/ops/feature_map.ts";
import { linearAttention, linearStateWords } from "../../lib/ops/linear_attention.ts";
import { angleTurns } from "../../wgsl/turns.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { createLinearRun } from "../harness/linear_run.ts";
import { traceFor } from "../ops/trace_target.ts";

const [ROWS, WIDTH, HEADS, SIZE] = [6, 8, 2, 4];

function fill(shift: number): Float32Array {
  return Float32Array.from(
    { length: ROWS * WIDTH },
    (_, at) => Math.sin(0.7 * Math.floor(at / WIDTH) + 1.3 * (at % WIDTH) + shift),
  );
}

interface Vector {
  readonly name: string;
  readonly map: "1+elu" | "elu" | "silu";
  readonly causal: boolean;
  readonly layout?: "interleaved" | "concat";
  readonly slopes?: readonly number[];
  /** Row 5, where it is known, and the sum of all numbers. */
  readonly row5?: readonly number[];
  readonly sum: number;
}

const SLOPES = [-1 / 16 * (1 + 1e-5), -1 / 256 * (1 + 1e-5)];

const VECTORS: readonly Vector[] = [
  {
    name: "NormAttention, 1+elu, rotary",
    map: "1+elu",
    causal: true,
    layout: "interleaved",
    row5: [-1.402091, -0.030981, 1.385516, 0.772229, -1.226961, -0.334749, 1.047872, 0.895358],
    sum: -4.267175,
  },
  { name: "NormAttention, 1+elu, both ways", map: "1+elu", causal: false, sum: -10.207012 },
  {
    name: "NormAttention, elu",
    map: "elu",
    causal: true,
    row5: [-1.327736, 0.789267, 1.749992, 0.146974, -0.949682, -0.59797, 0.629769, 0.934895],
    sum: -6.250406,
  },
  {
    name: "TransNormerLLM",
    map: "silu",
    causal: true,
    slopes: SLOPES,
    row5: [-1.123237, 0.586376, -0.662641, -0.231717, 0.145903, -0.479131, 0.388931, -0.4737],
    sum: -11.118427,
  },
  {
    name: "TransNormerLLM with LRPE",
    map: "silu",
    causal: true,
    layout: "concat",
    slopes: SLOPES,
    row5: [-1.176534, 0.320361, -0.621932, -0.503946, 0.158065, -0.51907, 0.42135, -0.513186],
    sum: -9.707228,
  },
];

function thetasOf(layout: Vector["layout"]): number[] {
  return layout === "concat"
    ? Array.from({ length: WIDTH }, (_, j) => 10000 ** (-2 * j / WIDTH))
    : Array.from({ length: SIZE / 2 }, (_, i) => 10000 ** (-2 * i / SIZE));
}

async function check(vector: Vector): Promise<void> {
  const { name, map, causal, layout, slopes, row5, sum } = vector;
  const keySize = layout === "concat" ? 2 * SIZE : SIZE;
  const spec = {
    heads: HEADS,
    kvHeads: HEADS,
    keySize,
    valueSize: SIZE,
    causal,
    decay: slopes ? { perHead: slopes } : "none" as const,
  };
  const words = linearStateWords(spec);
  const given = { width: WIDTH };
  // Up to 32 rows are recurrent, more go in chunks.
  for (const capacity of causal ? layout ? [32, 64] : [32] : [64]) {
    using run = await createLinearRun(await sharedGpu(), {
      inputs: { q: given, k: given, v: given },
      trace: (trace, { q, k, v }) => {
        trace.constants.set("turns", () => new Float32Array(angleTurns(thetasOf(layout)).buffer));
        const rotation = layout && { layout, turns: "turns", perHead: layout === "concat" };
        const features = { heads: HEADS, headSize: SIZE, map, ...(rotation ? { rotation } : {}) };
        const [query, key] = [q, k].map((x) => featureMap(trace, x, features));
        const state = causal ? { name: "state.0", layer: 0, words } : undefined;
        return linearAttention(trace, { q: query, k: key, v }, spec, state);
      },
      states: [words],
      sequences: 1,
      capacities: [capacity],
    });
    const rows = Array.from({ length: ROWS }, (_, position) => ({ token: 0, sequence: 0, position }));
    const values = await run.step({ capacity, rows, data: { q: fill(0.5), k: fill(1.1), v: fill(2.3) } });
    const gates = fill(3.7);
    const out = new Float64Array(values.length);
    for (let first = 0; first < values.length; first += WIDTH) {
      const row = values.subarray(first, first + WIDTH);
      const mean = row.reduce((total, value) => total + value * value, 0) / WIDTH;
      const norm = slopes ? Math.sqrt(mean + 1e-6) : Math.sqrt(mean) + 1e-8;
      row.forEach((value, i) => out[first + i] = value / norm * (slopes ? gates[first + i] : 1));
    }
    const total = out.reduce((a, b) => a + b);
    assert(Math.abs(total - sum) < 2e-5, `${name}, ${capacity} rows: sum ${total}, expected ${sum}`);
    row5?.forEach((want, i) => {
      const got = out[5 * WIDTH + i];
      assert(
        Math.abs(got - want) < 2e-6,
        `${name}, ${capacity} rows: number ${i} is ${got}, expected ${want}`,
      );
    });
  }
}

for (const vector of VECTORS) {
  Deno.test({
    name: `linearAttention() gives known vectors: ${vector.name}`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: () => check(vector),
  });
}

Deno.test("linearAttention() refuses what does not fit, in words", () => {
  const trace = traceFor();
  const { rows } = trace.target;
  const [q, k, v] = [24, 12, 24].map((width) => trace.value("x", rows, width));
  const spec = { heads: 6, kvHeads: 3, keySize: 4, valueSize: 8, causal: true, decay: "none" } as const;
  const words = linearStateWords(spec);
  const state = { name: "state.0", layer: 0, words };
  linearAttention(trace, { q, k, v }, spec, state);
  assertThrows(
    () => linearAttention(trace, { q, k, v }, spec, { ...state, words: 4 }),
    TypeError,
    `state of ${words} numbers: state.0 has 4`,
  );
  assertThrows(
    () => linearAttention(trace, { q, k, v }, { ...spec, decay: "token" }, state),
    TypeError,
    'logDecay with the decay "token"',
  );
  const perHead = [-1, 0, 0.1];
  assertThrows(
    () => linearAttention(trace, { q, k, v }, { ...spec, decay: { perHead } }, state),
    RangeError,
    "one of them is 0.1",
  );
  assertThrows(
    () => linearAttention(trace, { q, k, v }, { ...spec, decay: { perHead: [0] } }, state),
    TypeError,
    "each of 3 KV heads: there are 1",
  );
  assertThrows(
    () => linearAttention(trace, { q, k, v }, { ...spec, causal: false, decay: { perHead: [0, 0, 0] } }),
    TypeError,
    "no decay where rows see later ones",
  );
  const decoding = traceFor({ name: "rows", capacity: 2, thin: true });
  const [dq, dk, dv] = [q, k, v].map(({ width }) => decoding.value("x", decoding.target.rows, width));
  assertThrows(
    () => linearAttention(decoding, { q: dq, k: dk, v: dv }, { ...spec, causal: false }),
    TypeError,
    "cannot decode",
  );
  const small = traceFor({ name: "rows", capacity: 512, thin: false }, { bindingBytes: 30_000 });
  const [sq, sk, sv] = [4, 4, 256].map((width) => small.value("x", small.target.rows, width));
  const large = { ...spec, heads: 1, kvHeads: 1, valueSize: 256 };
  const out = linearAttention(small, { q: sq, k: sk, v: sv }, large, {
    ...state,
    words: linearStateWords(large),
  });
  assertThrows(() => lower(small, [], { out }), RangeError, "9 states of 4.00 KiB a head");
});
