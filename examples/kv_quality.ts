// What pruning the KV cache costs: notes found again and the loss of a continuation, for every policy and budget.
//
//   deno run -A examples/kv_quality.ts --help

import {
  generate,
  KV_POLICIES,
  type KvPolicy,
  loadModel,
  type Model,
  openGpu,
  score,
  type Turn,
  withKvPruning,
} from "../mod.ts";
// `score` starts at the second token; here only what follows a prompt of full length is wanted.
import { type NotePrompt, plainText, promptsWithNotes } from "./notes_text.ts";
import { evenly, fail, numbers, readOptions, readText, whole, writeText } from "./options.ts";
import { csv, lineChart, textTable } from "./svg.ts";

const USAGE = `deno run -A examples/kv_quality.ts [options]

Measures a model with a pruned KV cache: how many notes of a prompt it finds again (two tokens, greedy), and the loss a
token of a text that is decoded after a pruned prompt. Tables go to standard output.

  --model DIR         the model (default: novel-llama of the examples)
  --policies A,B      policies to measure (default: all; random is the floor)
  --keeps 1,0.45      budgets: shares of the full cache (default: 1,0.8,0.6,0.45,0.3,0.2)
  --ablations 0.6,0.8 budgets of the comparisons within PyramidInfer and others, or none (default: 0.6,0.8)
  --needles FILE      prompts, a line of JSON each: prompt, answer, tokens, depth (default: made from prose that comes along)
  --tokens 256,512    lengths of the prompts to ask (default: 256; with --needles all)
  --limit N           prompts of each length (default: 4)
  --text FILE         text for the loss (default: the same prose)
  --windows N         places of the text where the loss is measured (default: 1)
  --prompt-tokens N   tokens of the pruned prompt there (default: 512)
  --scored N          tokens decoded and scored after it (default: 64)
  --batch-rows N      most tokens of prompts that are fed together (default: 16384)
  --seed N            for the prompts that are made (default: 1)
  --out DIR           writes quality.csv, ablations.csv, answers.csv, notes.svg and loss.svg there

All 120 prompts of a needles file, on a graphics card: --needles FILE --limit 30 --text FILE --windows 16 --scored 128`;

const options = readOptions(USAGE, {
  model: new URL("./models/novel-llama", import.meta.url).pathname,
  policies: Object.keys(KV_POLICIES).join(),
  keeps: "1,0.8,0.6,0.45,0.3,0.2",
  ablations: "0.6,0.8",
  needles: "",
  tokens: "",
  limit: "4",
  text: "",
  windows: "1",
  "prompt-tokens": "512",
  scored: "64",
  "batch-rows": "16384",
  seed: "1",
  out: "",
});
const policies = options.policies.split(",").map((name) => name.trim());
for (const name of policies) {
  if (!Object.hasOwn(KV_POLICIES, name)) {
    fail(
      `There is no policy ${JSON.stringify(name)}: the policies are ${Object.keys(KV_POLICIES).join(", ")}`,
    );
  }
}
const keeps = [...new Set(numbers("keeps", options.keeps, 0.01, 1))].sort((a, b) => b - a);
const ablationKeeps = options.ablations === "none" ? [] : numbers("ablations", options.ablations, 0.01, 1);
const lengths = options.tokens === "" ? undefined : numbers("tokens", options.tokens, 32, Infinity, true);
const limit = whole("limit", options.limit, 1);
const windowCount = whole("windows", options.windows, 1);
const promptTokens = whole("prompt-tokens", options["prompt-tokens"], 1);
const scoredTokens = whole("scored", options.scored, 1);
const batchRows = whole("batch-rows", options["batch-rows"], 1);
const seed = whole("seed", options.seed, 0, 2 ** 32 - 1);

using gpu = await openGpu();
using model = await loadModel(gpu, options.model);
const { tokenizer } = model;
if (!tokenizer) fail("The model has no tokenizer, and prompts are texts: choose a model that has one");
const countTokens = (text: string) => tokenizer.encode(text).length;

const prompts = options.needles === ""
  ? (lengths ?? [256]).flatMap((tokens) => promptsWithNotes({ count: limit, tokens, seed, countTokens }))
  : readNeedles(options.needles, lengths);
const batches = batchesOf(prompts);
const windows = windowsOf(options.text === "" ? plainText() : readText("text", options.text));

/** The prompts of a file, so many of each length, evenly over the file so that all depths are among them. */
function readNeedles(path: string, wanted: readonly number[] | undefined): NotePrompt[] {
  const lines = readText("needles", path).split("\n").filter((line) => line.trim() !== "");
  const all = lines.map((line, i): NotePrompt => {
    try {
      const { prompt, answer, tokens, depth = 0 } = JSON.parse(line);
      if (typeof prompt === "string" && typeof answer === "string" && typeof tokens === "number") {
        return { prompt, answer, tokens, depth };
      }
    } catch { /* Told below. */ }
    return fail(
      `${path} line ${i + 1} must be JSON with prompt, answer and tokens: received ${line.slice(0, 60)}`,
    );
  });
  const present = [...new Set(all.map(({ tokens }) => tokens))];
  const missing = wanted?.filter((tokens) => !present.includes(tokens)) ?? [];
  if (present.length === 0) fail(`${path} has no prompts`);
  if (missing.length > 0) {
    fail(`${path} has prompts of ${present.join(", ")} tokens, and none of ${missing[0]}`);
  }
  return (wanted ?? present).flatMap((length) =>
    evenly(all.filter(({ tokens }) => tokens === length), limit)
  );
}

/** Prompts of one length that are fed together. */
function batchesOf(all: readonly NotePrompt[]): NotePrompt[][] {
  const result: NotePrompt[][] = [];
  for (const prompt of all) {
    const last = result.at(-1);
    const fits = last && last[0].tokens === prompt.tokens && (last.length + 1) * prompt.tokens <= batchRows;
    if (fits) last.push(prompt);
    else result.push([prompt]);
  }
  return result;
}

/** Token ids of prompts with what follows them, evenly over a text. */
function windowsOf(text: string): number[][] {
  const length = promptTokens + scoredTokens;
  const most = model.config.contextLength;
  if (length > most) {
    fail(`--prompt-tokens and --scored are ${length} together, over the model's context of ${most}`);
  }
  const ids = tokenizer!.encode(text);
  if (ids.length < length) {
    fail(
      `The text has ${ids.length} tokens, and --prompt-tokens and --scored are ${length}: give a longer --text`,
    );
  }
  const starts = Array.from({ length: windowCount }, (_, i) => (ids.length - length) * i / windowCount);
  return [...new Set(starts.map(Math.floor))].map((start) => ids.slice(start, start + length));
}

/** What one model was measured to do; a budget that cannot be met has a reason in place of a number. */
interface Quality {
  readonly notes: { readonly right: readonly string[] } | { readonly reason: string };
  /** Mean loss of every window. */
  readonly loss: { readonly windows: readonly number[] } | { readonly reason: string };
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** Runs what a budget may forbid. */
async function unlessRefused<T>(work: () => Promise<T>): Promise<T | { reason: string }> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RangeError) return { reason: error.message };
    throw error;
  }
}

async function measure(one: Model): Promise<Quality> {
  return {
    notes: await unlessRefused(async () => {
      const right: string[] = [];
      for (const batch of batches) {
        const texts = batch.map(({ prompt }) => prompt);
        const records = await generate(one, texts, { maxTokens: 2, temperature: 0 }).record;
        right.push(...records.map(({ text }) => text));
      }
      return { right };
    }),
    loss: await unlessRefused(async () => {
      const means: number[] = [];
      for (const ids of windows) means.push((await score(one, ids, { context: promptTokens })).meanNll);
      return { windows: means };
    }),
  };
}

/** Notes found, of all that were asked for. */
function rightOf({ notes }: Quality): number | undefined {
  return "reason" in notes ? undefined : notes.right.filter((text, i) => text === prompts[i].answer).length;
}

/** Share of the notes that was found. */
function shareOf(quality: Quality): number | undefined {
  const right = rightOf(quality);
  return right === undefined ? undefined : right / prompts.length;
}

function lossOf({ loss }: Quality): number | undefined {
  return "reason" in loss ? undefined : mean(loss.windows);
}

function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
}

/** How much more one loses than another, with the standard error over the windows, where there are several. */
function difference({ loss: one }: Quality, { loss: other }: Quality): string {
  if ("reason" in one || "reason" in other) return "–";
  const each = one.windows.map((nll, i) => nll - other.windows[i]);
  const middle = mean(each);
  if (each.length < 2) return signed(middle);
  const squares = each.reduce((sum, more) => sum + (more - middle) ** 2, 0);
  return `${signed(middle)} ± ${Math.sqrt(squares / (each.length - 1) / each.length).toFixed(4)}`;
}

const percent = (share: number | undefined) => share === undefined ? "–" : `${(share * 100).toFixed(0)} %`;
const loss = (nll: number | undefined) => nll === undefined ? "–" : nll.toFixed(3);
const started = performance.now();
const progress = (text: string) =>
  console.error(`${((performance.now() - started) / 1000).toFixed(0).padStart(5)} s  ${text}`);

const classes = [...new Set(prompts.map(({ tokens }) => tokens))].join(", ");
console.log(
  `${prompts.length} prompts of ${classes} tokens, each with a note to find; ` +
    `${windows.length} × ${scoredTokens} tokens scored after ${promptTokens}\n`,
);
const full = await measure(model);
progress(`full cache: ${percent(shareOf(full))}, ${loss(lossOf(full))}`);

/** By policy and budget. */
const measured = new Map<string, Map<number, Quality>>();
for (const name of policies) {
  const row = new Map<number, Quality>();
  measured.set(name, row);
  for (const keep of keeps) {
    const quality = await measure(withKvPruning(KV_POLICIES[name].make({ keep }))(model));
    row.set(keep, quality);
    progress(`${name} keep ${keep}: ${percent(shareOf(quality))}, ${loss(lossOf(quality))}`);
  }
}

/** A table of one measure: a row a policy, a column a budget. */
function table(title: string, cell: (quality: Quality) => string): string {
  return textTable([
    [title, ...keeps.map((keep) => `keep ${keep}`)],
    ["full cache", cell(full), ...keeps.slice(1).map(() => "")],
    ...[...measured].map(([name, row]) => [name, ...keeps.map((keep) => cell(row.get(keep)!))]),
  ]);
}

console.log(`${table("notes found", (quality) => percent(shareOf(quality)))}\n`);
console.log(`${table("loss a token", (quality) => loss(lossOf(quality)))}\n`);
const refused = [...measured].flatMap(([name, row]) =>
  [...row].flatMap(([keep, { notes, loss }]) =>
    [["notes", notes], ["loss", loss]].flatMap(([what, result]) =>
      typeof result === "object" && "reason" in result
        ? [`– ${name}, keep ${keep}, ${what}: ${result.reason}`]
        : []
    )
  )
);
if (refused.length > 0) console.log(`${refused.join("\n")}\n`);

/** A comparison at one budget: settings of one policy. */
interface Comparison {
  readonly group: "where to shrink" | "recent ratio" | "selection" | "positions";
  readonly setting: string;
  readonly policy: string;
  readonly options: Readonly<Record<string, unknown>>;
}

const RECENT_RATIOS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
// Each layer's own keys and values are cut, so that more shapes reach down to the budget in few layers.
const OWN = { sameLayer: true };
const comparisons: Comparison[] = [
  ...([["more in shallow layers", "linear"], ["uniformly", "constant"], ["less in shallow layers", "cosine"]]
    .map(([setting, prefillDecayStrategy]): Comparison => ({
      group: "where to shrink",
      setting,
      policy: "pyramid-infer",
      options: { ...OWN, prefillDecayStrategy },
    }))),
  ...RECENT_RATIOS.map((recentRatio): Comparison => ({
    group: "recent ratio",
    setting: String(recentRatio),
    policy: "pyramid-infer",
    // The strategy that leaves room for the widest windows.
    options: { ...OWN, prefillDecayStrategy: "constant", recentRatio },
  })),
  ...[["shared by all heads", false], ["each KV head its own", true]].map((
    [setting, perKvHead],
  ): Comparison => ({
    group: "selection",
    setting: String(setting),
    policy: "pyramid-infer",
    options: { ...OWN, prefillDecayStrategy: "constant", perKvHead },
  })),
  // A policy that knows one kind of positions has nothing to compare.
  ...["original", "relative"].flatMap((positions): Comparison[] => {
    const words = KV_POLICIES["streaming-llm"]?.options.positions;
    return Array.isArray(words) && words.includes(positions)
      ? [{ group: "positions", setting: positions, policy: "streaming-llm", options: { positions } }]
      : [];
  }),
];

/** A comparison and its numbers; `held` says whether the budget left the settings what was asked for. */
interface Outcome extends Comparison {
  readonly keep: number;
  readonly held: boolean;
  readonly inEffect: string;
  readonly quality: Quality;
}

/** What a budget left of the settings of a policy, in both kinds of turns that are measured. */
function inEffect(policy: KvPolicy, asked: Comparison["options"]): { held: boolean; inEffect: string } {
  const pruned = withKvPruning(policy)(model);
  const turns: Turn[] = [
    { tokens: countTokens(prompts[0].prompt), maxTokens: 2, position: 0 },
    { tokens: promptTokens, maxTokens: scoredTokens, position: 0 },
  ];
  let held = true;
  const told = turns.map((turn) => {
    try {
      const { prefillDecayStrategy, prefillDecay, recentRatio } = pruned.pruning?.settle(turn) ?? {};
      if (prefillDecayStrategy === undefined) return "as asked";
      held &&= prefillDecayStrategy === (asked.prefillDecayStrategy ?? "cosine") &&
        Math.abs(Number(recentRatio) - Number(asked.recentRatio ?? 0.2)) < 0.005;
      const two = (value: unknown) => Number(value).toFixed(2);
      return `${prefillDecayStrategy} ${two(prefillDecay)}, recent ${two(recentRatio)}`;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return "refused";
    }
  });
  return { held, inEffect: [...new Set(told)].join("; ") };
}

const outcomes: Outcome[] = [];
for (const keep of ablationKeeps) {
  for (const comparison of comparisons) {
    const policy = KV_POLICIES[comparison.policy].make({ keep, ...comparison.options });
    const quality = await measure(withKvPruning(policy)(model));
    outcomes.push({ ...comparison, keep, ...inEffect(policy, comparison.options), quality });
    progress(
      `${comparison.group}, ${comparison.setting}, keep ${keep}: ` +
        `${percent(shareOf(quality))}, ${loss(lossOf(quality))}`,
    );
  }
}
if (outcomes.length > 0) {
  const rows = outcomes.map(({ group, setting, keep, held, inEffect, quality }) => [
    `${group}: ${setting}`,
    String(keep),
    percent(shareOf(quality)),
    loss(lossOf(quality)),
    `${held ? "" : "* "}${inEffect}`,
  ]);
  console.log(
    `${textTable([["comparison", "keep", "notes", "loss", "in effect (notes; loss)"], ...rows])}\n`,
  );
  if (outcomes.some(({ held }) => !held)) {
    console.log("* The budget cannot be met with the settings asked for; these were put in their place.\n");
  }
}

/** A few sentences, computed from the numbers. */
function* findings(): Generator<string> {
  const middle = keeps.includes(0.45) ? 0.45 : keeps[Math.floor(keeps.length / 2)];
  const at = (name: string) => shareOf(measured.get(name)!.get(middle)!);
  const ranked = policies.filter((name) => at(name) !== undefined).sort((a, b) => at(b)! - at(a)!);
  if (ranked.length > 1) {
    const tell = (name: string) => `${name} ${percent(at(name))}`;
    yield `Notes found at keep ${middle}, the full cache ${percent(shareOf(full))}: ${
      ranked.map(tell).join(", ")
    }.`;
    const floor = measured.has("random") ? at("random") : undefined;
    const under = ranked.filter((name) => name !== "random" && floor !== undefined && at(name)! <= floor);
    if (under.length > 0) yield `No better than tokens by chance there: ${under.join(", ")}.`;
  }
  const losses = policies.flatMap((name) => {
    const nll = lossOf(measured.get(name)!.get(middle)!);
    return nll === undefined ? [] : [{ name, more: nll - (lossOf(full) ?? NaN) }];
  }).sort((a, b) => a.more - b.more);
  if (losses.length > 1) {
    const tell = ({ name, more }: { name: string; more: number }) => `${name} ${signed(more)}`;
    yield `Loss a token at keep ${middle}, against the full cache: ${losses.map(tell).join(", ")}.`;
  }
  for (const keep of ablationKeeps) yield* comparisonFindings(keep);
}

/** Whether the paper's comparisons come out here as they did there. */
function* comparisonFindings(keep: number): Generator<string> {
  const of = (group: Comparison["group"]) =>
    outcomes.filter((one) => one.group === group && one.keep === keep);
  const shapes = of("where to shrink");
  const lost = shapes.filter(({ held }) => !held).map(({ setting }) => `"${setting}"`);
  if (lost.length > 0) {
    yield `keep ${keep}: a model of so few layers cannot shrink ${lost.join(" or ")} at this budget, ` +
      `so the paper's order of the three cannot be told there.`;
  } else if (shapes.every(({ quality }) => lossOf(quality) !== undefined)) {
    const [more, even, less] = shapes.map(({ quality }) => lossOf(quality)!);
    const four = (nll: number) => nll.toFixed(4);
    const steps = [
      difference(shapes[1].quality, shapes[2].quality),
      difference(shapes[0].quality, shapes[1].quality),
    ];
    const order = less <= even && even <= more
      ? "the paper's order"
      : "not the paper's order, in which these are named";
    yield `keep ${keep}, loss by where it shrinks: less in shallow layers ${four(less)}, uniformly ${
      four(even)
    }, ` +
      `more in shallow layers ${four(more)} (from one to the next ${steps.join(", ")}): ${order}.`;
  }
  const ratios = of("recent ratio").filter(({ held, quality }) => held && lossOf(quality) !== undefined);
  if (ratios.length > 1) {
    const best = ratios.reduce((a, b) => lossOf(b.quality)! < lossOf(a.quality)! ? b : a);
    const held = ratios.map(({ setting }) => setting).join(", ");
    const same = Number(best.setting) >= 0.4 ? "as in the paper" : "not the paper's 0.4 to 0.6";
    yield `keep ${keep}, lowest loss of the recent ratios ${held}: ${best.setting}, ${same}.`;
  }
  for (const group of ["selection", "positions"] as const) {
    const [one, other] = of(group);
    if (!one || !other) continue;
    const tell = ({ setting, quality }: Outcome) =>
      `${setting} ${percent(shareOf(quality))}, ${loss(lossOf(quality))}`;
    yield `keep ${keep}, ${group}, notes and loss: ${tell(one)}; ${tell(other)} ` +
      `(${difference(other.quality, one.quality)}).`;
  }
}

for (const sentence of findings()) console.log(sentence);
if (prompts.length < 30 || windows.length < 8) {
  console.log("So few prompts and windows make an impression, no measurement: raise --limit and --windows.");
}

if (options.out !== "") writeFiles(options.out);

function writeFiles(folder: string): void {
  const reason = (part: Quality["notes"] | Quality["loss"]) => "reason" in part ? part.reason : undefined;
  const numbersOf = (quality: Quality) => [
    prompts.length,
    rightOf(quality),
    shareOf(quality),
    windows.length * scoredTokens,
    lossOf(quality),
    reason(quality.notes),
    reason(quality.loss),
  ];
  const heads = ["prompts", "right", "share", "scored_tokens", "loss", "notes_refused", "loss_refused"];
  const cells = [...measured].flatMap(([name, row]) =>
    [...row].map(([keep, quality]) => [name, keep, ...numbersOf(quality)])
  );
  writeText(
    folder,
    "quality.csv",
    csv([["policy", "keep", ...heads], ["full", 1, ...numbersOf(full)], ...cells]),
  );
  const compared = outcomes.map((
    { group, setting, keep, held, inEffect, quality },
  ) => [group, setting, keep, String(held), inEffect, ...numbersOf(quality)]);
  writeText(
    folder,
    "ablations.csv",
    csv([["comparison", "setting", "keep", "held", "in_effect", ...heads], ...compared]),
  );
  const answers = [["full", new Map([[1, full]])] as const, ...measured].flatMap(([name, row]) =>
    [...row].flatMap(([keep, { notes }]) =>
      "reason" in notes ? [] : notes.right.map((text, i) => {
        const { tokens, depth, answer } = prompts[i];
        return [name, keep, tokens, depth, answer, text, Number(text === answer)];
      })
    )
  );
  writeText(
    folder,
    "answers.csv",
    csv([["policy", "keep", "tokens", "depth", "answer", "text", "right"], ...answers]),
  );
  const lines = (value: (quality: Quality) => number | undefined) => [
    { name: "full cache", points: keeps.map((keep) => [keep, value(full)] as const), faint: true },
    ...[...measured].map(([name, row]) => ({
      name,
      points: [...row].map(([keep, quality]) => [keep, value(quality)] as const),
      faint: name === "random",
    })),
  ];
  const axes = { xTitle: "share of the full KV cache", xTicks: [...keeps].reverse(), xText: String };
  writeText(
    folder,
    "notes.svg",
    lineChart({
      ...axes,
      title: "Notes found again",
      yTitle: `of ${prompts.length} prompts of ${classes} tokens`,
      yRange: [0, 1],
      yText: percent,
    }, lines(shareOf)),
  );
  writeText(
    folder,
    "loss.svg",
    lineChart({
      ...axes,
      title: "Loss of a continuation after a pruned prompt",
      yTitle: "nats a token",
      yText: (nll) => nll.toFixed(3),
    }, lines(lossOf)),
  );
}
