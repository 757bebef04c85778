import { assert, assertEquals, assertThrows } from "@std/assert";
import { featureMap } from "../../lib/ops/feature_map.ts";
import { performerDirections, performerFeatures } from "../../lib/ops/performer_features.ts";
import { angleTurns } from "../../wgsl/turns.ts";
import { relativeError } from "../harness/compare.ts";
import { checkCase, randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { createLinearRun } from "../harness/linear_run.ts";
import { randomWeights } from "../harness/random_weights.ts";
import { rotationOracle } from "../oracles/linear_attention.ts";
import { traceFor, weightOf } from "../ops/trace_target.ts";
import { cases } from "./feature_map_cases.ts";

const SHARED = { sanitizeOps: false, sanitizeResources: false };

for (const subgroups of [true, false]) {
  Deno.test({
    name: `featureMap() agrees with the f64 oracle (${subgroups ? "with" : "without"} subgroups)`,
    ...SHARED,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: !subgroups });
      const all = cases({ dtype: "f32", subgroups });
      // Maps component by component have no subgroup operations: once is enough.
      const reduced = /softmax|exp|hedgehog|householder|l2/;
      for (const test of all) if (subgroups || reduced.test(test.kernel.name)) await checkCase(gpu, test);
    },
  });
}

Deno.test({
  name: "featureMap() takes angles and reflections from constants and weights",
  ...SHARED,
  fn: async () => {
    const gpu = await sharedGpu();
    const [heads, headSize] = [2, 8];
    const thetas = Array.from({ length: heads * headSize / 2 }, (_, i) => 0.1 + i);
    const turns = weightOf("theta", 1, 2 * thetas.length);
    const reflection = weightOf("v", 1, headSize);
    using weights = await randomWeights(gpu, [reflection, turns]);
    weights.store.write(turns, 0, new Uint8Array(angleTurns(thetas).buffer));
    const shared = { heads, headSize, map: "identity", householder: reflection } as const;
    const x = randomArray(3 * heads * headSize, 1);
    const v = [...weights.values(reflection)];
    const rows = [9, 70_000, 70_001].map((position) => ({ token: 0, sequence: 0, position }));
    const want = rows.flatMap(({ position }, row) =>
      [0, 1].flatMap((head) => {
        const own = [...x.subarray((row * heads + head) * headSize, (row * heads + head + 1) * headSize)];
        const product = own.reduce((sum, value, i) => sum + value * v[i], 0);
        const angles = thetas.slice(head * headSize / 2, (head + 1) * headSize / 2);
        return rotationOracle("half", own.map((value, i) => value - 2 * product * v[i]), angles, position);
      })
    );
    for (const source of [turns, "turns.test"]) {
      using run = await createLinearRun(gpu, {
        inputs: { x: { width: heads * headSize } },
        trace: (trace, { x }) => {
          trace.constants.set("turns.test", () => new Float32Array(angleTurns(thetas).buffer));
          const rotation = { layout: "half", turns: source, perHead: true } as const;
          return featureMap(trace, x, { ...shared, rotation });
        },
        sequences: 1,
        capacities: [32],
        weights: weights.store,
      });
      const got = await run.step({ capacity: 32, rows, data: { x } });
      const error = relativeError(got, want);
      assert(error < 1e-6, `${source}: error ${error}`);
    }
  },
});

Deno.test("featureMap() refuses what does not fit, in words", () => {
  const trace = traceFor();
  const x = trace.value("x", trace.target.rows, 16);
  const shared = { heads: 2, headSize: 8, map: "relu" } as const;
  assertThrows(() => featureMap(trace, x, { ...shared, heads: 3 }), TypeError, "x as 3 heads of 8 numbers");
  assertThrows(
    () => featureMap(trace, x, { ...shared, householder: weightOf("v", 1, 16) }),
    TypeError,
    "takes 8 numbers as reflection: weight v is [1, 16]",
  );
  const rotation = { layout: "concat", turns: weightOf("theta", 1, 16), perHead: true } as const;
  assertThrows(() => featureMap(trace, x, { ...shared, rotation }), TypeError, "takes 32 numbers as turns");
  assertThrows(
    () => featureMap(trace, x, { ...shared, rotation: { ...rotation, perHead: false, restart: 0 } }),
    RangeError,
    "current value is 0",
  );
  assertEquals(featureMap(trace, x, { ...shared, map: "hedgehog" }).width, 32);
});

Deno.test("angleTurns() gives fractions of a turn of 64 bits", () => {
  assertEquals([...angleTurns([0, Math.PI, -Math.PI / 2, 4 * Math.PI])], [
    0,
    0,
    2 ** 31,
    0,
    3 * 2 ** 30,
    0,
    0,
    0,
  ]);
  assertThrows(() => angleTurns([1, NaN]), RangeError, "number 1 is NaN");
});

Deno.test("performerDirections() are orthogonal in blocks, the same for a seed", () => {
  const [size, features] = [6, 15];
  const w = performerDirections(size, features, 3);
  assertEquals(w, performerDirections(size, features, 3));
  assert(w.some((value, i) => value !== performerDirections(size, features, 4)[i]));
  const product = (a: number, b: number) =>
    Array.from({ length: size }, (_, d) => w[d * features + a] * w[d * features + b]).reduce((x, y) => x + y);
  for (let a = 0; a < features; a++) {
    for (let b = 0; b < a; b++) {
      if (Math.floor(a / size) !== Math.floor(b / size)) continue;
      assert(Math.abs(product(a, b)) < 1e-6 * Math.sqrt(product(a, a) * product(b, b)));
    }
  }
  // Squared lengths are headSize on average.
  const wide = performerDirections(16, 256, 1);
  const squares = wide.reduce((sum, value) => sum + value * value, 0) / 256;
  assert(Math.abs(squares / 16 - 1) < 0.1, `mean squared length ${squares}`);
});

for (const isQuery of [true, false]) {
  Deno.test({
    name: `performerFeatures() agree with the f64 oracle (${isQuery ? "queries" : "keys"})`,
    ...SHARED,
    fn: async () => {
      const gpu = await sharedGpu({ withoutSubgroups: isQuery });
      const [heads, headSize, features, seed] = [3, 12, 20, 7];
      using run = await createLinearRun(gpu, {
        inputs: { x: { width: heads * headSize, margin: [1, 0] } },
        trace: (trace, { x }) => performerFeatures(trace, x, { heads, headSize, features, seed, isQuery }),
        sequences: 1,
        capacities: [32],
      });
      const rows = Array.from({ length: 5 }, (_, position) => ({ token: 0, sequence: 0, position }));
      const x = randomArray(rows.length * heads * headSize, 2, 3);
      // Queries as long as these would overflow without the shift.
      if (isQuery) x.subarray(0, headSize).fill(1e3);
      const w = performerDirections(headSize, features, seed);
      const want: number[] = [];
      for (let first = 0; first < x.length; first += headSize) {
        const own = [...x.subarray(first, first + headSize)].map((value) => value * headSize ** -0.25);
        const half = own.reduce((sum, value) => sum + value * value, 0) / 2;
        const exponents = Array.from(
          { length: features },
          (_, i) => own.reduce((sum, value, d) => sum + value * w[d * features + i], -half),
        );
        const shift = isQuery ? Math.max(...exponents) : 0;
        want.push(...exponents.map((value) => Math.exp(value - shift) / Math.sqrt(features)));
      }
      const got = await run.step({ capacity: 32, rows, data: { x } });
      const from = isQuery ? features : 0;
      const error = relativeError(got.subarray(from), want.slice(from));
      assert(error < 1e-5, `error ${error}`);
      assert(got.every((value) => Number.isFinite(value)));
    },
  });
}
