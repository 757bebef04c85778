// The two troubles with linear attention that TransNormer is made against (Qin et al. 2022, arXiv:2210.10340, "The Devil in
// Linear Transformer"), measured: gradients without a bound, by differences through the shipped kernels, and attention that
// is diluted, in the models at hand.
//
//   deno run -A examples/devil_in_linear_transformer.ts --help

import { type Gpu, openGpu } from "../mod.ts";
import {
  type Dilution,
  dilutionChart,
  dilutionFindings,
  dilutionTable,
  measureDilution,
  RATIOS,
  uniformShares,
} from "./attention_dilution.ts";
import { equalScores, randomInput, type Steps, sweepScale } from "./gradient_differences.ts";
import {
  FORMS,
  gradientFindings,
  type GradientMeasures,
  gradientPicture,
  gradientTables,
  SWEPT,
} from "./gradient_report.ts";
import { modelFolders } from "./model_folders.ts";
import { plainText } from "./notes_text.ts";
import { fail, numbers, readOptions, readText, whole, writeText } from "./options.ts";
import { csv, sideBySide } from "./svg.ts";

const USAGE = `deno run -A examples/devil_in_linear_transformer.ts [options]

(a) Prints derivatives of attention by its scores, by central differences through the kernels in f32, beside closed forms and
bounds: of equal scores that fall towards 0, and of random rows whose features are scaled down. (b) Prints how much of a row's
attention goes to its nearest keys, by model and layer; attention maps are computed on the host and held against the GPU.

  --models DIR,DIR    models of (b): Llamas and TransNormers; those that are missing are left out (default: those of the
                      examples); "none" leaves (b) out
  --text FILE         text of (b) (default: prose that comes along)
  --windows N         places of the text (default: 1)
  --tokens N          tokens of a window (default: 512)
  --keys N            rows of (a), a multiple of 4 up to 64 (default: 64)
  --scores 1,0.1      scores of (a), from 1e-8 to 1 (default: twelve from 0.1 to 1e-8)
  --scales 1,0.1      what features are multiplied by in (a) (default: 1,0.1,0.01,0.001,0.0001)
  --width N           columns of the random rows of (a), a multiple of 4 up to 64 (default: 32)
  --seed N            other random rows for another number (default: 1)
  --out DIR           writes scores.csv, sweep.csv, gradients.svg, dilution.csv and dilution.svg there`;

const options = readOptions(USAGE, {
  models: "",
  text: "",
  windows: "1",
  tokens: "512",
  keys: "64",
  scores: "0.1,0.03,0.01,0.001,0.0001,0.00003,0.00001,0.000003,0.000001,0.0000003,0.0000001,0.00000001",
  scales: "1,0.1,0.01,0.001,0.0001",
  width: "32",
  seed: "1",
  out: "",
});
const windows = whole("windows", options.windows, 1);
const tokens = whole("tokens", options.tokens, 2);
const fours = (name: "keys" | "width") => {
  const value = whole(name, options[name], 4, 64);
  return value % 4 === 0 ? value : fail(`--${name} takes a multiple of 4: received ${value}`);
};
const keys = fours("keys");
const width = fours("width");
const scores = numbers("scores", options.scores, 1e-8, 1).sort((a, b) => b - a);
const scales = numbers("scales", options.scales, 1e-4, 1).sort((a, b) => b - a);
const seed = whole("seed", options.seed, 0, 2 ** 32 - 1);
const folders = options.models === "none" ? [] : modelFolders(options.models);
const text = options.text === "" ? plainText() : readText("text", options.text);
const steps: Steps = { softmax: 0.05, relative: 0.1 };

/** (a) Derivatives through the kernels. */
async function measureGradients(gpu: Gpu): Promise<GradientMeasures> {
  const [curves, sweeps] = [new Map(), new Map()];
  for (const [name, form] of Object.entries(FORMS)) {
    curves.set(name, await equalScores(gpu, form, keys, scores, steps));
    console.error(`${name}: ${scores.length} scores`);
  }
  const input = randomInput(keys, width, seed);
  for (const [name, form] of Object.entries(SWEPT)) {
    sweeps.set(name, await sweepScale(gpu, form, input, scales, steps));
    console.error(`${name}: ${scales.length} scales`);
  }
  const longest = (rows: readonly Float32Array[]) => Math.max(...rows.map((row) => Math.hypot(...row)));
  return {
    ...{ keys, width, scores, scales, steps, curves, sweeps },
    c1: longest(input.gradient),
    c2: longest(input.value),
  };
}

/** (b) Where the models' attention goes; what cannot be measured is named and left out. */
async function measureModels(gpu: Gpu): Promise<Dilution[]> {
  const measured: Dilution[] = [];
  for (const folder of folders) {
    try {
      measured.push(await measureDilution(gpu, folder, { text, windows, tokens }));
      console.error(`${folder.name}: attention maps`);
    } catch (error) {
      console.error(`${folder.name} is left out: ${error instanceof Error ? error.message : error}`);
    }
  }
  return measured;
}

using gpu = await openGpu();
const gradients = await measureGradients(gpu);
console.log(gradientTables(gradients));
for (const sentence of gradientFindings(gradients)) console.log(sentence);
const models = await measureModels(gpu);
const uniform = uniformShares(tokens, RATIOS);
if (models.length > 0) {
  console.log(
    `\nLocally accumulated attention, ${windows} × ${tokens} tokens.\n${dilutionTable(models, uniform)}`,
  );
  for (const sentence of dilutionFindings(models, uniform)) console.log(sentence);
}

if (options.out !== "") {
  const write = (name: string, content: string) => writeText(options.out, name, content);
  write(
    "scores.csv",
    csv([
      ["attention", "score", "measured", "closed_form", "by_key"],
      ...[...gradients.curves].flatMap(([name, points]) =>
        points.map(({ score, measured, closed, byKey }) => [name, score, measured, closed, byKey])
      ),
    ]),
  );
  write(
    "sweep.csv",
    csv([
      ["attention", "scale", "measured", "closed_form", "apart"],
      ...[...gradients.sweeps].flatMap(([name, points]) =>
        points.map(({ scale, measured, closed, apart }) => [name, scale, measured, closed, apart])
      ),
    ]),
  );
  write("gradients.svg", gradientPicture(gradients));
  if (models.length > 0) {
    write(
      "dilution.csv",
      csv([
        ["model", "layer", "kind", "ratio", "share", "uniform", "negative"],
        ...models.flatMap(({ name, kinds, shares, negative }) =>
          shares.flatMap((values, layer) =>
            values.map((
              share,
              i,
            ) => [name, layer, kinds[layer], RATIOS[i], share, uniform[i], negative[layer]])
          )
        ),
      ]),
    );
    write("dilution.svg", sideBySide(models.map((model) => dilutionChart(model, uniform)), 2));
  }
}
