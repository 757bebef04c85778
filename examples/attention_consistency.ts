// The observations that PyramidInfer rests on (Yang et al. 2024, section 3), measured on the model at hand: how much each
// layer's keys and values can be pruned, how few keys carry the attention, and how well recent tokens agree on which.
//
//   deno run -A examples/attention_consistency.ts --help

import { forward, loadModel, type Model, openGpu, perLayer, score, snapKv, withKvPruning } from "../mod.ts";
// `score` starts at the second token; here only what follows a prompt of full length is wanted.
import { hostLlama } from "./host_llama.ts";
import { plainText } from "./notes_text.ts";
import { fail, numbers, readOptions, readText, whole, writeText } from "./options.ts";
import { csv, type Line, lineChart, textTable } from "./svg.ts";

const USAGE = `deno run -A examples/attention_consistency.ts [options]

Prints three tables: the loss when one layer alone is pruned, the keys that carry most of the attention by layer, and how well
recent tokens agree with the last one on which keys those are. Attention maps are computed on the host from the weights.

  --model DIR         the model, a Llama (default: novel-llama of the examples)
  --text FILE         text to measure on (default: prose that comes along)
  --windows N         places of the text (default: 1)
  --prompt-tokens N   tokens of a prompt (default: 512)
  --scored N          tokens decoded and scored after it (default: 64)
  --shares 0.8,0.1    what one layer keeps of the prompt (default: 0.8,0.6,0.4,0.2,0.1)
  --mass P            attention that the keys carry which are counted (default: 0.8)
  --recent R          share of the newest tokens that are compared with the last (default: 0.3)
  --ensemble R        share of the newest tokens whose attention is averaged (default: 0.2)
  --distance-weight W weight of the newest of them, the oldest having 1 (default: 1.2)
  --out DIR           writes one_layer, keys and agreement there, each as .csv and .svg`;

const options = readOptions(USAGE, {
  model: new URL("./models/novel-llama", import.meta.url).pathname,
  text: "",
  windows: "1",
  "prompt-tokens": "512",
  scored: "64",
  shares: "0.8,0.6,0.4,0.2,0.1",
  mass: "0.8",
  recent: "0.3",
  ensemble: "0.2",
  "distance-weight": "1.2",
  out: "",
});
const windowCount = whole("windows", options.windows, 1);
const promptTokens = whole("prompt-tokens", options["prompt-tokens"], 32);
const scoredTokens = whole("scored", options.scored, 1);
const shares = numbers("shares", options.shares, 0.01, 1);
const one = (name: "mass" | "recent" | "ensemble" | "distance-weight", low: number, high: number): number =>
  numbers(name, options[name], low, high)[0];
const mass = one("mass", 0.01, 0.999);
const recentTokens = Math.max(1, Math.floor(one("recent", 0.01, 0.9) * promptTokens));
const ensembleTokens = Math.max(1, Math.floor(one("ensemble", 0.01, 0.9) * promptTokens));
const distanceWeight = one("distance-weight", 0, 1000);

using gpu = await openGpu();
using model = await loadModel(gpu, options.model);
if (!model.tokenizer) {
  fail("The model has no tokenizer, and the text must be tokens: choose a model that has one");
}
const attentionOf = await hostLlama(options.model, model).catch((error) => fail(error.message));

const length = promptTokens + scoredTokens;
if (length > model.config.contextLength) {
  fail(
    `--prompt-tokens and --scored are ${length} together, over the context of ${model.config.contextLength}`,
  );
}
const textIds = model.tokenizer.encode(options.text === "" ? plainText() : readText("text", options.text));
if (textIds.length < length) {
  fail(
    `The text has ${textIds.length} tokens, and --prompt-tokens and --scored are ${length}: give a longer --text`,
  );
}
const windows = Array.from({ length: windowCount }, (_, i) => {
  const start = Math.floor((textIds.length - length) * i / windowCount);
  return textIds.slice(start, start + length);
});

/** The loss a token of what follows the prompts, decoded. */
async function lossOf(pruned: Model): Promise<number> {
  let sum = 0;
  for (const ids of windows) sum += (await score(pruned, ids, { context: promptTokens })).meanNll;
  return sum / windows.length;
}

const fullLoss = await lossOf(model);
const maps = windows.map((ids) => attentionOf(ids.slice(0, promptTokens)));
const layers = maps[0].layers.length;
// The host's arithmetic is another; what it says holds only if it comes to the same.
const { hidden } = await forward(model, windows[0].slice(0, promptTokens), { hidden: true });
const largest = hidden!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const apart = hidden!.reduce((most, value, i) => Math.max(most, Math.abs(value - maps[0].hidden[i])), 0);
console.log(
  `${windows.length} × ${promptTokens} tokens; hidden states of host and GPU differ by at most ` +
    `${(apart / largest).toExponential(1)} of the largest\n`,
);
if (!(apart < 0.02 * largest)) fail("Host and GPU do not agree: the attention maps would be another model's");

// (a) One layer alone keeps a share of the prompt, chosen by the attention of its newest rows; all later tokens stay.
const oneLayer: number[][] = [];
for (let layer = 0; layer < layers; layer++) {
  const row: number[] = [];
  oneLayer.push(row);
  for (const share of shares) {
    const kept = Math.max(1, Math.floor(share * promptTokens));
    const window = Math.min(32, Math.ceil(kept / 2));
    const cut = snapKv({ cacheTokens: kept + scoredTokens - 1, window, kernel: 1 });
    row.push(await lossOf(withKvPruning(perLayer((l) => l === layer ? cut : undefined))(model)) - fullLoss);
  }
  console.error(`layer ${layer} pruned alone`);
}
const signed = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
console.log(`Loss a token when one layer alone is pruned, against ${fullLoss.toFixed(4)} with everything:`);
console.log(
  `${
    textTable([
      ["", ...shares.map((share) => `keeps ${share}`)],
      ...oneLayer.map((row, layer) => [`layer ${layer}`, ...row.map(signed)]),
    ])
  }\n`,
);

/** The keys with the most attention that carry `mass` of it together. */
function mostAttended(weights: ArrayLike<number>): Set<number> {
  const order = Array.from(weights, (_, key) => key).sort((a, b) => weights[b] - weights[a]);
  const enough = mass * order.reduce((sum, key) => sum + weights[key], 0);
  const chosen = new Set<number>();
  for (let sum = 0, i = 0; sum < enough && i < order.length; i++) {
    chosen.add(order[i]);
    sum += weights[order[i]];
  }
  return chosen;
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const recentRows = Array.from({ length: recentTokens }, (_, i) => promptTokens - recentTokens + i);
/** Keys before all rows that are compared: each of these rows sees all of them. */
const context = promptTokens - Math.max(recentTokens, ensembleTokens);
if (context < 1) fail("--recent and --ensemble leave no token before them");

// (b) Keys that carry most of the attention of a recent row, of all that it sees.
const keyCounts = Array.from({ length: layers }, (_, layer) => {
  const counts = maps.flatMap((map) =>
    recentRows.map((row) => {
      const at = row * promptTokens;
      return { keys: mostAttended(map.layers[layer].subarray(at, at + row + 1)).size, seen: row + 1 };
    })
  );
  return {
    keys: mean(counts.map(({ keys }) => keys)),
    share: mean(counts.map(({ keys, seen }) => keys / seen)),
  };
});
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
console.log(
  `Keys that carry ${percent(mass)} of a row's attention (mean over heads, newest ${recentTokens} rows):`,
);
console.log(
  `${
    textTable([
      ["", "keys", "of those it sees"],
      ...keyCounts.map(({ keys, share }, layer) => [`layer ${layer}`, keys.toFixed(1), percent(share)]),
    ])
  }\n`,
);

/** How far a choice of keys is that of the last row. */
interface Agreement {
  /** Share of the last row's keys that are among the chosen ones. */
  readonly count: number;
  /** The same, each key counting by the attention that the last row pays it. */
  readonly attention: number;
  /** What as many keys by chance would come to, by either measure. */
  readonly chance: number;
}

function agreement(
  chosen: ReadonlySet<number>,
  last: ReadonlySet<number>,
  weights: ArrayLike<number>,
): Agreement {
  const shared = [...last].filter((key) => chosen.has(key));
  const sum = (keys: readonly number[]) => keys.reduce((all, key) => all + weights[key], 0);
  return {
    count: shared.length / last.size,
    attention: sum(shared) / sum([...last]),
    chance: chosen.size / weights.length,
  };
}

function meanAgreement(all: readonly Agreement[]): Agreement {
  const of = (name: keyof Agreement) => mean(all.map((each) => each[name]));
  return { count: of("count"), attention: of("attention"), chance: of("chance") };
}

// (c) How far recent rows choose the keys of the last row: each by itself, and their attention put together. The last row is
// left out of the sums, so that it is not compared with itself.
const agreements = Array.from({ length: layers }, (_, layer) => {
  const byMap = maps.map((map) => {
    const weightsOf = (row: number) =>
      map.layers[layer].subarray(row * promptTokens, row * promptTokens + context);
    const lastWeights = weightsOf(promptTokens - 1);
    const last = mostAttended(lastWeights);
    const against = (weights: ArrayLike<number>) => agreement(mostAttended(weights), last, lastWeights);
    const together = (newest: number): Float64Array => {
      const sum = new Float64Array(context);
      for (let i = 0; i < ensembleTokens - 1; i++) {
        const weight = 1 + (newest - 1) * i / Math.max(1, ensembleTokens - 1);
        weightsOf(promptTokens - ensembleTokens + i).forEach((value, key) => sum[key] += weight * value);
      }
      return sum;
    };
    return {
      alone: meanAgreement(recentRows.slice(0, -1).map((row) => against(weightsOf(row)))),
      even: against(together(1)),
      weighted: against(together(distanceWeight)),
    };
  });
  const of = (name: "alone" | "even" | "weighted") => meanAgreement(byMap.map((each) => each[name]));
  return { alone: of("alone"), even: of("even"), weighted: of("weighted") };
});
console.log(
  `How many of the last row's keys others choose, of the ${context} keys before all of them, by number of keys and by the\n` +
    `attention that the last row pays them,` +
    ` beside as many keys by chance; each row alone (newest ${recentTokens}), and the newest ${ensembleTokens} together\n` +
    `without and with weights (1 … ${distanceWeight}):`,
);
const cells = ({ count, attention, chance }: Agreement) => [count, attention, chance].map(percent);
console.log(
  `${
    textTable([
      ["", ...["alone", "together", "weighted"].flatMap((name) => [name, "attention", "chance"])],
      ...agreements.map(({ alone, even, weighted }, layer) => [
        `layer ${layer}`,
        ...[alone, even, weighted].flatMap(cells),
      ]),
    ])
  }\n`,
);

/** A few sentences, computed from the numbers. */
function* findings(): Generator<string> {
  const least = oneLayer.map((row) => row[shares.indexOf(Math.min(...shares))]);
  const worst = least.indexOf(Math.max(...least));
  const upper = mean(least.slice(Math.ceil(layers / 2)));
  const lower = mean(least.slice(0, Math.floor(layers / 2)));
  yield `Pruned to ${percent(Math.min(...shares))}, layer ${worst} costs most (${
    signed(least[worst])
  }); the lower half of ` +
    `the layers ${signed(lower)} on average, the upper half ${signed(upper)}: ` +
    `${
      lower > upper
        ? "deep layers can be pruned more, as in the paper"
        : "not the paper's finding that deep layers can be pruned more"
    }.`;
  const over = (of: (each: typeof agreements[number]) => number) => mean(agreements.map(of));
  yield `Recent rows choose ${percent(over(({ alone }) => alone.count))} of the last row's keys ` +
    `(${percent(over(({ alone }) => alone.attention))} of its attention), by chance ` +
    `${percent(over(({ alone }) => alone.chance))}; together ${percent(over(({ even }) => even.count))} ` +
    `(${percent(over(({ even }) => even.attention))}, by chance ${
      percent(over(({ even }) => even.chance))
    }).`;
  const gain = over(({ weighted, even }) => weighted.count - even.count);
  yield `The recency weights change that by ${
    (100 * gain).toFixed(2)
  } points. The paper tells of 86 % and 93 %, without ` +
    `what chance gives.`;
}
for (const sentence of findings()) console.log(sentence);

if (options.out !== "") {
  const byLayer = (name: string, value: (layer: number) => number, faint = false): Line => ({
    name,
    points: Array.from({ length: layers }, (_, layer) => [layer, value(layer)] as const),
    faint,
  });
  const axes = { xTitle: "layer", xTicks: Array.from({ length: layers }, (_, i) => i), xText: String };
  const whole = (share: number) => `${(100 * share).toFixed(0)} %`;
  writeText(
    options.out,
    "one_layer.csv",
    csv([
      ["layer", "keep", "loss_more"],
      ...oneLayer.flatMap((row, layer) => row.map((more, i) => [layer, shares[i], more])),
    ]),
  );
  writeText(
    options.out,
    "one_layer.svg",
    lineChart(
      {
        title: "One layer alone is pruned",
        xTitle: "share of the prompt that the layer keeps",
        xTicks: [...shares].sort((a, b) => a - b),
        xText: whole,
        yTitle: "more loss a token, nats",
        yText: (y) => y.toFixed(3),
      },
      oneLayer.map((row, layer) => ({
        name: `layer ${layer}`,
        points: row.map((more, i) => [shares[i], more] as const),
      })),
    ),
  );
  writeText(
    options.out,
    "keys.csv",
    csv([["layer", "keys", "share"], ...keyCounts.map(({ keys, share }, layer) => [layer, keys, share])]),
  );
  writeText(
    options.out,
    "keys.svg",
    lineChart({
      ...axes,
      title: `Keys that carry ${whole(mass)} of a row's attention`,
      yTitle: "share of the keys it sees",
      yRange: [0, 1],
      yText: whole,
    }, [byLayer("share of keys", (layer) => keyCounts[layer].share)]),
  );
  const kinds = ["alone", "even", "weighted"] as const;
  writeText(
    options.out,
    "agreement.csv",
    csv([
      ["layer", "rows", "count", "attention", "chance"],
      ...agreements.flatMap((row, layer) =>
        kinds.map((kind) => [layer, kind, row[kind].count, row[kind].attention, row[kind].chance])
      ),
    ]),
  );
  writeText(
    options.out,
    "agreement.svg",
    lineChart({
      ...axes,
      title: "Keys of the last row that others choose",
      yTitle: "share",
      yRange: [0, 1],
      yText: whole,
    }, [
      byLayer("each recent row alone, keys", (layer) => agreements[layer].alone.count),
      byLayer("each recent row alone, attention", (layer) => agreements[layer].alone.attention),
      byLayer("together, keys", (layer) => agreements[layer].even.count),
      byLayer("together with recency weights, keys", (layer) => agreements[layer].weighted.count),
      byLayer("as many as alone by chance", (layer) => agreements[layer].alone.chance, true),
      byLayer("as many as together by chance", (layer) => agreements[layer].even.chance, true),
    ]),
  );
}
