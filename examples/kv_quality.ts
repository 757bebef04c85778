// What pruning the KV cache costs, for every policy and budget: notes found again, with the question in the prompt and asked
// only afterwards, the loss of a continuation, and how often the model still chooses the full cache's tokens.
//
//   deno run -A examples/kv_quality.ts --help

import {
  KV_POLICIES,
  loadModel,
  type Model,
  openGpu,
  parseKvPolicy,
  type Turn,
  withKvPruning,
} from "../mod.ts";
import { keptCells } from "./cells.ts";
import { hostLlama } from "./host_llama.ts";
import { attentionTable, type NoteAttention, noteAttention } from "./note_attention.ts";
import { type NotePrompt, plainText, promptsWithNotes } from "./notes_text.ts";
import { evenly, fail, numbers, readOptions, readText, whole } from "./options.ts";
import {
  comparisonFindings,
  COMPARISONS,
  comparisonTable,
  inEffect,
  type Outcome,
} from "./quality_comparisons.ts";
import { writeFiles } from "./quality_files.ts";
import {
  afterwardsOf,
  agreementOf,
  greedyTexts,
  insideOf,
  lossOf,
  lossText,
  measureQuality,
  PARTS,
  percent,
  type Quality,
  signed,
  splitQuestion,
} from "./quality_measures.ts";
import { textTable } from "./svg.ts";

const USAGE = `deno run -A examples/kv_quality.ts [options]

Measures a model with a pruned KV cache: how many notes of a prompt it finds again (two tokens, greedy) when the question
stands in the prompt and when it is asked in a second turn, after the notes were pruned; the loss a token of a text that is
decoded after a pruned prompt; and how many of the full cache's greedy tokens are the likeliest here, too, each after the full
cache's tokens before it. Beside it the attention that the question pays its note, computed on the host for a Llama. Tables go
to standard output.

  --model DIR         the model (default: novel-llama of the examples)
  --policies A,B      policies to measure (default: all; random is the floor); one option may stand behind a name:
                      pyramid-infer:algorithm=paper
  --keeps 1,0.45      budgets: shares of the full cache (default: 1,0.8,0.6,0.45,0.3,0.2)
  --ablations 0.6,0.8 budgets of the comparisons within PyramidInfer and others, or none (default: 0.6,0.8)
  --needles FILE      prompts, a line of JSON each: prompt, answer, tokens, depth (default: made from prose that comes along)
  --tokens 256,512    lengths of the prompts to ask (default: 256; with --needles all)
  --limit N           prompts of each length (default: 4)
  --text FILE         text for the loss (default: the same prose)
  --windows N         places of the text where the loss is measured (default: 1)
  --prompt-tokens N   tokens of the pruned prompt there (default: 512)
  --scored N          tokens decoded and scored after it (default: 64)
  --greedy N          tokens whose choice is compared with the full cache's (default: 48)
  --attention N       prompts of each length whose attention is computed on the host; 0 is none (default: 1)
  --batch-rows N      most tokens of prompts that are fed together (default: 16384)
  --sessions N        second turns that run at a time (default: 4)
  --seed N            for the prompts that are made (default: 1)
  --cells DIR         keeps what was measured there, and takes what is there: to go on after a break, or to put together what
                      several runs measured, each of some policies
  --out DIR           writes tables (.csv) and pictures (.svg) there: quality, ablations, answers and attention; notes,
                      afterwards, loss, agreement, attention, and heat maps of the notes found by length and depth

All 120 prompts of a needles file, on a graphics card:
  --needles FILE --limit 30 --text FILE --windows 16 --scored 128 --greedy 64 --attention 8`;

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
  greedy: "48",
  attention: "1",
  "batch-rows": "16384",
  sessions: "4",
  seed: "1",
  cells: "",
  out: "",
});
const policies = options.policies.split(",").map((name) => name.trim());
for (const name of policies) {
  if (!Object.hasOwn(KV_POLICIES, name.split(":")[0])) {
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
const greedyTokens = whole("greedy", options.greedy, 1);
const attentionPrompts = whole("attention", options.attention, 0);
const sessions = whole("sessions", options.sessions, 1);
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
for (const { prompt } of prompts) {
  if (!splitQuestion(prompt)) {
    fail("A prompt has no paragraph before its question: end it with one of its own");
  }
}
const windows = windowsOf(options.text === "" ? plainText() : readText("text", options.text));
const windowPrompts = windows.map((ids) => ids.slice(0, promptTokens));
if (promptTokens + greedyTokens > model.config.contextLength) {
  fail(`--prompt-tokens and --greedy are over the model's context of ${model.config.contextLength} together`);
}
const task = {
  batches: batchesOf(prompts),
  windows,
  promptTokens,
  greedy: await greedyTexts(model, windowPrompts, greedyTokens),
  sessions,
};
const cells = await keptCells(options.cells, [prompts, windows, promptTokens, greedyTokens, model.config]);
/** Measures a model, unless it was measured before. */
const measure = (name: string, one: Model, some = false): Promise<Quality> =>
  cells(name, () => measureQuality(one, task, some));

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

const started = performance.now();
const progress = (text: string) =>
  console.error(`${((performance.now() - started) / 1000).toFixed(0).padStart(5)} s  ${text}`);

const classes = [...new Set(prompts.map(({ tokens }) => tokens))].join(", ");
console.log(
  `${prompts.length} prompts of ${classes} tokens, each with a note to find; ` +
    `${windows.length} × ${scoredTokens} tokens scored after ${promptTokens}\n`,
);
/** One model's numbers in a line. */
const summary = (quality: Quality) =>
  `${percent(insideOf(quality))}, afterwards ${percent(afterwardsOf(quality))}, ${
    lossText(lossOf(quality))
  }, ` +
  `agreement ${percent(agreementOf(quality))}`;
const full = await measure("full", model);
progress(`full cache: ${summary(full)}`);

/** By policy and budget. */
const measured = new Map<string, Map<number, Quality>>();
for (const name of policies) {
  const row = new Map<number, Quality>();
  measured.set(name, row);
  for (const keep of keeps) {
    const policy = parseKvPolicy(`${name}${name.includes(":") ? "," : ":"}keep=${keep}`);
    const quality = await measure(`${name.replace(/[:=]/g, "-")}_${keep}`, withKvPruning(policy)(model));
    row.set(keep, quality);
    progress(`${name} keep ${keep}: ${summary(quality)}`);
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

const measures = [
  { name: "notes found", of: insideOf, text: percent },
  { name: "asked afterwards", of: afterwardsOf, text: percent },
  { name: "loss a token", of: lossOf, text: lossText },
  {
    name: "perplexity",
    of: (quality: Quality) => lossOf(quality) === undefined ? undefined : Math.exp(lossOf(quality)!),
    text: (value: number | undefined) => value === undefined ? "–" : value.toFixed(2),
  },
  { name: "full cache's tokens", of: agreementOf, text: percent },
] as const;
for (const { name, of, text } of measures) console.log(`${table(name, (quality) => text(of(quality)))}\n`);
const refused = [...measured].flatMap(([name, row]) =>
  [...row].flatMap(([keep, quality]) =>
    PARTS.flatMap((part) => {
      const result = quality[part];
      return "reason" in result ? [`– ${name}, keep ${keep}, ${part}: ${result.reason}`] : [];
    })
  )
);
if (refused.length > 0) console.log(`${refused.join("\n")}\n`);

const attention = attentionPrompts > 0 ? await measureAttention() : [];
if (attention.length > 0) console.log(`${attentionTable(attention)}\n`);

/** By prompt and layer: what the note gets of the attention. */
async function measureAttention(): Promise<NoteAttention[][]> {
  if (model.config.modelType !== "llama") {
    console.log(`The attention of a ${model.config.modelType} is not computed on the host.\n`);
    return [];
  }
  const attentionOf = await hostLlama(options.model, model);
  const classes = [...new Set(prompts.map(({ tokens }) => tokens))];
  const some = classes.flatMap((length) =>
    evenly(prompts.filter(({ tokens }) => tokens === length), attentionPrompts)
  );
  const result: NoteAttention[][] = [];
  for (const [index, { prompt, answer }] of some.entries()) {
    const { notes, question } = splitQuestion(prompt)!;
    const at = notes.indexOf(`${question.slice(question.indexOf("here is"))}${answer}`);
    if (at < 0) continue;
    // The paragraph that it stands in.
    const start = Math.max(0, notes.lastIndexOf("\n\n", at));
    const end = notes.indexOf("\n\n", at);
    const note = {
      first: countTokens(notes.slice(0, start)),
      end: countTokens(end < 0 ? notes : notes.slice(0, end)),
    };
    const ids = tokenizer!.encode(prompt);
    result.push(
      await cells(
        `attention_${attentionPrompts}_${index}`,
        () => Promise.resolve(noteAttention(attentionOf(ids), note, countTokens(notes))),
      ),
    );
    progress(`attention of ${ids.length} tokens`);
  }
  return result;
}

/** Turns of both kinds that are measured. */
const turns: Turn[] = [
  { tokens: countTokens(prompts[0].prompt), maxTokens: 2, position: 0 },
  { tokens: promptTokens, maxTokens: scoredTokens, position: 0 },
];
const outcomes: Outcome[] = [];
for (const keep of ablationKeeps) {
  for (const comparison of COMPARISONS) {
    const policy = KV_POLICIES[comparison.policy].make({ keep, ...comparison.options });
    const name = `${comparison.group}_${comparison.setting}_${keep}`.replaceAll(" ", "-");
    const pruned = withKvPruning(policy)(model);
    const quality = await measure(name, pruned, true);
    outcomes.push({ ...comparison, keep, ...inEffect(pruned, turns, comparison.options), quality });
    progress(
      `${comparison.group}, ${comparison.setting}, keep ${keep}: ` +
        `${percent(insideOf(quality))}, ${lossText(lossOf(quality))}`,
    );
  }
}
if (outcomes.length > 0) console.log(comparisonTable(outcomes));

/** A few sentences, computed from the numbers. */
function* findings(): Generator<string> {
  const middle = keeps.includes(0.45) ? 0.45 : keeps[Math.floor(keeps.length / 2)];
  const orders = [["Notes found", insideOf], ["Notes found, asked afterwards,", afterwardsOf], [
    "The full cache's tokens chosen",
    agreementOf,
  ]] as const;
  for (const [what, of] of orders) {
    const at = (name: string) => of(measured.get(name)!.get(middle)!);
    const ranked = policies.filter((name) => at(name) !== undefined).sort((a, b) => at(b)! - at(a)!);
    if (ranked.length < 2) continue;
    const tell = (name: string) => `${name} ${percent(at(name))}`;
    yield `${what} at keep ${middle}, the full cache ${percent(of(full))}: ${ranked.map(tell).join(", ")}.`;
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
  for (const keep of ablationKeeps) yield* comparisonFindings(outcomes, keep);
}

for (const sentence of findings()) console.log(sentence);
if (prompts.length < 30 || windows.length < 8) {
  console.log("So few prompts and windows make an impression, no measurement: raise --limit and --windows.");
}

if (options.out !== "") {
  writeFiles(options.out, {
    prompts,
    keeps,
    full,
    measured,
    outcomes,
    attention,
    scoredTokens: windows.length * scoredTokens,
    greedyTokens: windows.length * greedyTokens,
  });
}
