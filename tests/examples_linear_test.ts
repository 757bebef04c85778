// The examples about linear attention: their formulas against differences, their metric by hand, and the scripts run to their
// end with tiny sizes.

import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { localShares, RATIOS, uniformShares } from "../examples/attention_dilution.ts";
import { randomInput } from "../examples/gradient_differences.ts";
import {
  equalScoresDerivative,
  feature,
  featureInverse,
  type Form,
  normBounds,
  rowGradient,
  rowOutput,
} from "../examples/gradient_formulas.ts";
import { hostTransNormer } from "../examples/host_transnormer.ts";
import { modelFolders } from "../examples/model_folders.ts";
import { lineChart, powerOfTen, sideBySide } from "../examples/svg.ts";
import { assertSvg, csvRows, run, runFor } from "./harness/examples.ts";

const FORMS: readonly Form[] = [
  { kind: "softmax" },
  { kind: "linear" },
  { kind: "norm", epsilon: 1e-2, placement: "inside" },
  { kind: "norm", epsilon: 1e-2, placement: "additive" },
];

/** Scores over 0 with values [keys][width] and a gradient. */
function randomRow(keys: number, width: number, seed: number) {
  const { query, value, gradient } = randomInput(keys, width, seed);
  return { scores: query.map(([x]) => 0.1 + 0.3 * Math.abs(x)), value, gradient: gradient[0] };
}

Deno.test("rowGradient() is what differences of rowOutput() come to", () => {
  for (const form of FORMS) {
    for (const [keys, width] of [[1, 3], [2, 1], [7, 5], [13, 4]]) {
      const { scores, value, gradient } = randomRow(keys, width, keys);
      const { output, derivatives } = rowGradient(form, scores, value, gradient);
      assertEquals(output, rowOutput(form, scores, value));
      scores.forEach((_, k) => {
        const step = 1e-5;
        const moved = (by: number) => rowOutput(form, scores.map((s, j) => j === k ? s + by : s), value);
        const [below, above] = [moved(-step), moved(step)];
        const change = above.reduce((sum, x, c) => sum + gradient[c] * (x - below[c]), 0);
        assertAlmostEquals(derivatives[k], change / (2 * step), 1e-7, `${JSON.stringify(form)} ${keys} ${k}`);
      });
    }
  }
});

Deno.test("equalScoresDerivative() is the largest derivative of a row of equal scores", () => {
  for (const form of FORMS) {
    for (const keys of [2, 5, 64]) {
      const units = Array.from(
        { length: keys },
        (_, j) => Float64Array.from({ length: keys }, (_, c) => +(c === j)),
      );
      for (const score of [1, 1e-3]) {
        const all = units.map((unit) =>
          rowGradient(form, new Array(keys).fill(score), units, unit).derivatives[0]
        );
        const most = Math.max(...all.map(Math.abs));
        assertAlmostEquals(equalScoresDerivative(form, score, keys) / most, 1, 1e-9);
      }
    }
  }
  // 1/s · 1/n · (1 - 1/n), as in the paper's appendix.
  const linear = [1e-2, 1e-4, 1e-6].map((score) => equalScoresDerivative({ kind: "linear" }, score, 64));
  assertEquals(linear.map((value) => +value.toPrecision(4)), [1.538, 153.8, 15380]);
});

Deno.test("the bounds hold: 1/4, 1/(4 s), and those of NormAttention", () => {
  const norm: Form & { kind: "norm" } = { kind: "norm", epsilon: 1e-6, placement: "inside" };
  const length = (row: ArrayLike<number>) => Math.hypot(...Array.from(row));
  for (const scale of [1, 1e-2, 1e-4, 1e-6]) {
    const { scores, value, gradient } = randomRow(11, 6, 5);
    const scaled = scores.map((score) => score * scale);
    const largest = (form: Form) =>
      Math.max(...rowGradient(form, scaled, value, gradient).derivatives.map(Math.abs));
    const bound = normBounds(norm, length(gradient), Math.max(...value.map(length)), 6);
    assert(largest(norm) <= bound.tight && bound.tight < bound.loose!);
    const additive = { ...norm, placement: "additive" } as const;
    assert(
      largest(additive) <= normBounds(additive, length(gradient), Math.max(...value.map(length)), 6).tight,
    );
    const units = scaled.map((_, j) => Float64Array.from(scaled, (_, c) => +(c === j)));
    for (const unit of units) {
      for (const kind of ["softmax", "linear"] as const) {
        rowGradient({ kind }, scaled, units, unit).derivatives.forEach((derivative, k) => {
          assert(Math.abs(derivative) <= (kind === "softmax" ? 0.25 : 0.25 / scaled[k]));
        });
      }
    }
  }
  for (const y of [1e-8, 0.3, 1, 2.5]) assertAlmostEquals(feature(featureInverse(y)) / y, 1, 1e-12);
});

Deno.test("localShares() sums the nearest keys of each row", () => {
  // Row 0 sees one key; row 1 half and half; row 2 gives nothing and is left out; row 3 gives all to the oldest key.
  const map = Float32Array.of(1, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0);
  assertEquals(localShares(map, 4, [0.25, 0.5, 0.75, 1]), [1.5 / 3, 1.5 / 3, 2 / 3, 1]);
  assertEquals(uniformShares(2, [0.5, 1]), [0.75, 1]);
  const even = Float32Array.from(
    { length: 49 },
    (_, at) => at % 7 <= Math.floor(at / 7) ? 1 / (1 + Math.floor(at / 7)) : 0,
  );
  localShares(even, 7, RATIOS).forEach((share, i) =>
    assertAlmostEquals(share, uniformShares(7, RATIOS)[i], 1e-6)
  );
});

Deno.test("sideBySide() and lines without marks are valid SVG", () => {
  const axes = {
    title: "t",
    xTitle: "x",
    yTitle: "y",
    xTicks: [-2, 0],
    xText: powerOfTen,
    yText: powerOfTen,
  };
  const points = [[-2, 1], [0, 3]] as const;
  const marks = lineChart(axes, [{ name: "m", points, draw: "marks", color: "#123456" }]);
  const line = lineChart(axes, [{ name: "l", points, draw: "line", dash: "1 2" }]);
  assertEquals([marks.match(/<circle/g)!.length, line.includes("<circle")], [3, false]);
  assertStringIncludes(line, 'stroke-dasharray="1 2"');
  const picture = sideBySide([marks, line, line], 2);
  assertSvg(picture);
  assertEquals(picture.match(/<svg/g)!.length, 4);
  assertEquals([-12, 0, 1, 2, -0.5].map(powerOfTen), ["10⁻¹²", "1", "10", "10²", "0.32"]);
});

Deno.test("hostTransNormer() gives maps whose rows sum to one, within their block", async () => {
  const [folder] = modelFolders("").filter(({ name }) => name === "novel-transnormer");
  const { kinds, mapsOf } = await hostTransNormer(folder.path);
  assertEquals(kinds, ["diag", "diag", "diag", "norm", "norm", "norm"]);
  const tokens = 66;
  const { layers, negative } = mapsOf(Array.from({ length: tokens }, (_, i) => 7 * i + 300));
  layers.forEach((map, layer) => {
    for (let i = 0; i < tokens; i++) {
      const row = map.subarray(i * tokens, (i + 1) * tokens);
      assertAlmostEquals(row.reduce((a, b) => a + b, 0), 1, 1e-5);
      const first = kinds[layer] === "diag" ? i - i % 64 : 0;
      row.forEach((share, j) => assert(share >= 0 && (share === 0 || j >= first && j <= i)));
    }
    assertEquals(negative[layer] > 0, kinds[layer] === "norm");
  });
});

Deno.test("devil_in_linear_transformer.ts prints its tables and writes them with pictures", async () => {
  const { stdout, stderr, files } = await runFor(
    "devil_in_linear_transformer.ts",
    ...["--keys", "8", "--scores", "0.01,0.000001", "--scales", "1,0.001", "--width", "4"],
    ...["--models", "examples/models/novel-transnormer,examples/models/nothing", "--tokens", "40"],
  );
  assertMatch(stderr, /^There is no model in examples\/models\/nothing: it is left out$/m);
  assertEquals([...files.keys()].sort(), [
    "dilution.csv",
    "dilution.svg",
    "gradients.svg",
    "scores.csv",
    "sweep.csv",
  ]);
  for (const [name, text] of files) if (name.endsWith(".svg")) assertSvg(text);
  const [heads, ...scores] = csvRows(files.get("scores.csv"));
  assertEquals(heads, ["attention", "score", "measured", "closed_form", "by_key"]);
  assertEquals(scores.length, 6);
  for (const [name, , measured, closed] of scores) {
    assertAlmostEquals(Number(measured) / Number(closed), 1, 0.02, name);
  }
  const sweep = csvRows(files.get("sweep.csv")).slice(1);
  assertEquals(sweep.length, 8);
  for (const row of sweep) assert(Number(row[4]) < 0.03, row.join());
  assertEquals(csvRows(files.get("dilution.csv")).length, 1 + 6 * RATIOS.length);
  assertMatch(stdout, /^Scaled linear attention has no bound: comes out here: /m);
  assertMatch(stdout, /^NormAttention is bounded: comes out here, /m);
  const apart = Number(
    /hidden states of host and GPU differ by at most (\S+) of the largest/.exec(stdout)![1],
  );
  assert(apart < 1e-4, stdout);
});

Deno.test("language_models.ts prints a line a model, and says which are left out", async () => {
  const models = "examples/models/novel-llama,examples/models/novel-transnormer,examples/models/nothing";
  const { stdout, stderr, files } = await runFor("language_models.ts", "--models", models, "--limit", "20");
  assertMatch(stderr, /^There is no model in examples\/models\/nothing: it is left out$/m);
  const [heads, llama, transnormer] = csvRows(files.get("language_models.csv"));
  const of = (row: string[], name: string) => row[heads.indexOf(name)];
  assertEquals([of(llama, "name"), of(llama, "parameters"), of(llama, "tokens")], [
    "novel-llama",
    "1631872",
    "19",
  ]);
  assertEquals(of(transnormer, "attention"), "3 diag-attention + 3 norm-attention");
  for (const row of [llama, transnormer]) {
    const loss = Number(of(row, "loss"));
    assert(loss > 1 && loss < 8);
    assertAlmostEquals(Number(of(row, "perplexity")), Math.exp(loss), 1e-6);
  }
  // Keys and values grow with the window, a state does not.
  assert(Number(of(llama, "kv_bytes")) > 0 && of(llama, "state_bytes") === "0");
  assert(of(transnormer, "kv_bytes") === "0" && Number(of(transnormer, "state_bytes")) > 0);
  assertMatch(stdout, /^novel-transnormer +\d+\.\d\d +\d\.\d{4} /m);
});

Deno.test("the examples about linear attention tell what they take, and what is wrong", async () => {
  for (const name of ["devil_in_linear_transformer.ts", "language_models.ts"]) {
    const help = await run(name, "--help");
    assertEquals([help.code, help.stderr], [0, ""]);
    assertStringIncludes(help.stdout, `deno run -A examples/${name} [options]\n`);
  }
  assertEquals(
    (await run("devil_in_linear_transformer.ts", "--scores", "2")).stderr,
    '--scores takes numbers from 1e-8 to 1: received "2"\n',
  );
  assertMatch(
    (await run("language_models.ts", "--dtype", "i8")).stderr,
    /^--dtype takes f16 or f32: received i8\n$/,
  );
});
