// Attention dilution (Qin et al. 2022, arXiv:2210.10340, section 3.2): how much of a row's attention goes to the keys nearest
// to it, layer by layer, in models that are causal.

import { forward, type Gpu, loadModel } from "../mod.ts";
import { hostLlama } from "./host_llama.ts";
import { hostTransNormer } from "./host_transnormer.ts";
import type { ModelFolder } from "./model_folders.ts";
import { type Line, lineChart, textTable } from "./svg.ts";
import { verdict } from "./verdict.ts";

/** How the metric is read for causal models: the end points and what is averaged. */
const DEFINITION =
  `l(r): the share of row i's weight on the ⌈r · (i + 1)⌉ keys nearest to it, itself included, of the i + 1 that it sees (the past
half of the paper's neighbourhood, normalised by the available positions), averaged over rows, heads and windows. Weights that
may be negative (features that are rotated, or elu) count by |weight|, each row and head summing to 1; heads whose ReLU scores are
all 0 are left out of their row. Uniform: every key the same.`;

/** Ratios that are drawn. */
export const RATIOS: readonly number[] = Array.from({ length: 20 }, (_, i) => (i + 1) / 20);

/** Keys nearest to row i that a ratio takes in. */
function nearest(ratio: number, row: number): number {
  // Sums such as 0.1 · 30 are a little over what they should be.
  return Math.ceil(ratio * (row + 1) - 1e-9);
}

/** Locally accumulated attention of a map [tokens, tokens] whose rows sum to 1 or, when they are to be left out, to 0. */
export function localShares(map: Float32Array, tokens: number, ratios: readonly number[]): number[] {
  const sums = new Array<number>(ratios.length).fill(0);
  let rows = 0;
  const upTo = new Float64Array(tokens + 1);
  for (let i = 0; i < tokens; i++) {
    for (let count = 1; count <= i + 1; count++) {
      upTo[count] = upTo[count - 1] + map[i * tokens + i + 1 - count];
    }
    if (upTo[i + 1] === 0) continue;
    rows++;
    ratios.forEach((ratio, at) => sums[at] += upTo[nearest(ratio, i)]);
  }
  return sums.map((sum) => sum / Math.max(1, rows));
}

/** What {@linkcode localShares} gives where every key gets the same. */
export function uniformShares(tokens: number, ratios: readonly number[]): number[] {
  return ratios.map((ratio) => {
    let sum = 0;
    for (let i = 0; i < tokens; i++) sum += nearest(ratio, i) / (i + 1);
    return sum / tokens;
  });
}

/** Where a model's attention goes. */
export interface Dilution {
  readonly name: string;
  /** Kind of attention by layer. */
  readonly kinds: readonly string[];
  /** By layer and ratio. */
  readonly shares: readonly (readonly number[])[];
  /** By layer: the share of negative weights. */
  readonly negative: readonly number[];
  /** Largest difference of hidden states of host and GPU, over the largest hidden state. */
  readonly apart: number;
}

/** What of a text is measured. */
export interface DilutionOptions {
  readonly text: string;
  /** Places of the text. */
  readonly windows: number;
  /** Tokens of each. */
  readonly tokens: number;
}

/**
 * Computes a model's attention maps on the host, and its hidden states on the GPU to compare.
 *
 * @throws {Error} when the model is none that is computed on the host, the text is too short, or host and GPU do not agree.
 */
export async function measureDilution(
  gpu: Gpu,
  { name, path }: ModelFolder,
  { text, windows, tokens }: DilutionOptions,
): Promise<Dilution> {
  using model = await loadModel(gpu, path, { dtype: "f32" });
  if (!model.tokenizer) throw new TypeError("The model has no tokenizer, and the text must be tokens");
  const ids = model.tokenizer.encode(text);
  const most = Math.min(ids.length, model.config.contextLength);
  if (tokens > most) {
    throw new RangeError(
      `A window of ${tokens} tokens is over the ${most} that text and context have: give a longer text`,
    );
  }
  const { kinds, mapsOf } = await hostModel(path, model);
  const ratios = RATIOS;
  const shares = kinds.map(() => new Array<number>(ratios.length).fill(0));
  const negative = kinds.map(() => 0);
  let apart = 0;
  for (let window = 0; window < windows; window++) {
    const start = Math.floor((ids.length - tokens) * window / windows);
    const part = ids.slice(start, start + tokens);
    const maps = mapsOf(part);
    maps.layers.forEach((map, layer) => {
      localShares(map, tokens, ratios).forEach((share, i) => shares[layer][i] += share / windows);
      negative[layer] += maps.negative[layer] / windows;
    });
    const { hidden } = await forward(model, part, { hidden: true });
    const largest = hidden!.reduce((so, value) => Math.max(so, Math.abs(value)), 0);
    const difference = hidden!.reduce((so, value, i) => Math.max(so, Math.abs(value - maps.hidden[i])), 0);
    apart = Math.max(apart, difference / largest);
  }
  if (!(apart < 0.02)) {
    throw new Error(
      `Host and GPU differ by ${apart.toExponential(1)}: the attention maps would be another model's`,
    );
  }
  return { name, kinds, shares, negative, apart };
}

/** The host's computation of a model. */
async function hostModel(path: string, model: Parameters<typeof hostLlama>[1]) {
  if (model.config.modelType !== "llama") return await hostTransNormer(path);
  const attentionOf = await hostLlama(path, model);
  const config = JSON.parse(await Deno.readTextFile(`${path}/config.json`));
  const kinds = new Array<string>(config.num_hidden_layers).fill("softmax");
  return {
    kinds,
    mapsOf: (ids: readonly number[]) => ({ ...attentionOf(ids), negative: kinds.map(() => 0) }),
  };
}

/** A picture of one model: a line a layer. */
export function dilutionChart({ name, kinds, shares }: Dilution, uniform: readonly number[]): string {
  const line = (title: string, values: readonly number[]): Line => ({
    name: title,
    points: [[0, 0], ...RATIOS.map((ratio, i) => [ratio, values[i]] as const)],
    draw: "line",
  });
  return lineChart({
    title: name,
    xTitle: "nearest keys, of those that a row sees",
    yTitle: "share of the row's attention",
    xTicks: [0, 0.2, 0.4, 0.6, 0.8, 1],
    yRange: [0, 1],
    yText: (y) => y.toFixed(1),
    xText: (x) => x.toFixed(1),
  }, [
    ...shares.map((values, layer) => line(`layer ${layer}, ${kinds[layer]}`, values)),
    { ...line("uniform", uniform), faint: true },
  ]);
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** What is shown, how it is defined, and how far host and GPU are apart. */
export function dilutionTable(models: readonly Dilution[], uniform: readonly number[]): string {
  const shown = [0.1, 0.2, 0.4, 0.6, 0.8].map((ratio) => RATIOS.findIndex((each) => each >= ratio - 1e-9));
  const cells = (values: readonly number[]) => shown.map((i) => values[i].toFixed(3));
  const table = textTable([
    ["", ...shown.map((i) => `r = ${RATIOS[i]}`), "negative"],
    ...models.flatMap(({ name, kinds, shares, negative }) =>
      shares.map((values, layer) => [
        `${name} layer ${layer}, ${kinds[layer]}`,
        ...cells(values),
        percent(negative[layer]),
      ])
    ),
    ["uniform", ...cells(uniform), "–"],
  ]);
  const apart = models.map(({ name, apart }) =>
    `${name}: hidden states of host and GPU differ by at most ${apart.toExponential(1)} of the largest.`
  );
  return `${DEFINITION}\n\n${table}\n\n${apart.join("\n")}`;
}

/** Sentences on what the paper says of it, computed. */
export function* dilutionFindings(
  models: readonly Dilution[],
  uniform: readonly number[],
): Generator<string> {
  const at = RATIOS.findIndex((ratio) => ratio >= 0.4 - 1e-9);
  const early = ({ shares }: Dilution) =>
    mean(shares.slice(0, Math.ceil(shares.length / 2)).map((each) => each[at]));
  const late = ({ shares }: Dilution) =>
    mean(shares.slice(Math.ceil(shares.length / 2)).map((each) => each[at]));
  for (const model of models) {
    yield `${model.name}: the nearest 40 % of keys get ${
      percent(early(model))
    } in the first half of the layers and ` +
      `${percent(late(model))} in the second (uniform ${percent(uniform[at])}).`;
  }
  const having = (has: (kinds: readonly string[]) => boolean) => models.find(({ kinds }) => has(kinds));
  const softmax = having((kinds) => kinds.every((kind) => kind === "softmax"));
  const linear = having((kinds) => kinds.every((kind) => kind === "linear"));
  if (softmax) {
    yield `Early softmax layers look at their neighbourhood (the paper: about 80 %, measured to both sides): ${
      verdict(early(softmax) > uniform[at] + 0.1)
    }, ${percent(early(softmax))} in ${softmax.name}.`;
  }
  if (softmax && linear) {
    yield `Early linear layers spread their attention wider than softmax's (the paper: about 40 %, as good as uniform): ${
      verdict(early(linear) < early(softmax))
    }, ${percent(early(linear))} in ${linear.name} against ${
      percent(early(softmax))
    }; as good as uniform (within 10 points): ${verdict(Math.abs(early(linear) - uniform[at]) < 0.1)}.`;
  }
  for (const model of models.filter(({ kinds }) => kinds.includes("diag"))) {
    const blocks = mean(
      model.shares.filter((_, layer) => model.kinds[layer] === "diag").map((each) => each[at]),
    );
    const rival = linear ?? softmax;
    yield `Blocks bring the neighbourhood back: ${rival ? `${verdict(blocks > early(rival))}, ` : ""}${
      percent(blocks)
    } in the diag layers of ${model.name}${
      rival ? ` against ${percent(early(rival))} early in ${rival.name}` : ""
    }.`;
  }
}
