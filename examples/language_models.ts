// Language models side by side on one text: how well they predict it, and what they keep of it while they read.
//
//   deno run -A examples/language_models.ts --help

import { formatBytes, loadModel, type Model, openGpu, planRun, score } from "../mod.ts";
import { attentionsOf } from "../lib/layers/mod.ts";
import { openCheckpoint } from "../lib/weights/mod.ts";
import { modelFolders } from "./model_folders.ts";
import { plainText } from "./notes_text.ts";
import { fail, readOptions, readText, whole, writeText } from "./options.ts";
import { csv, textTable } from "./svg.ts";

const USAGE = `deno run -A examples/language_models.ts [options]

Prints perplexity, loss a token, bits a byte, parameters, bytes kept at the window's length and tokens scored a second, by model.

  --models DIR,DIR  the models; those that are missing are left out (default: those of the examples)
  --text FILE       text to score (default: prose that comes along)
  --window N        tokens of a window (default: the model's context, at most the text)
  --stride N        tokens from one window to the next; less gives tokens more context (default: the window less 1: every window
                    begins anew)
  --limit N         only so many tokens of the text, as the first model counts them; all models score the same text (default: all)
  --dtype f16|f32   storage of weights and caches (default: f32)
  --out DIR         writes language_models.csv there`;

const options = readOptions(USAGE, {
  models: "",
  text: "",
  window: "",
  stride: "",
  limit: "",
  dtype: "f32",
  out: "",
});
const window = options.window === "" ? undefined : whole("window", options.window, 2);
const stride = options.stride === "" ? undefined : whole("stride", options.stride, 1);
const limit = options.limit === "" ? undefined : whole("limit", options.limit, 2);
const { dtype } = options;
if (dtype !== "f16" && dtype !== "f32") fail(`--dtype takes f16 or f32: received ${dtype}`);
const folders = modelFolders(options.models);
if (folders.length === 0) fail("There is no model to score: name folders with --models");
let text = options.text === "" ? plainText() : readText("text", options.text);

/** A model's line. */
interface Line {
  readonly name: string;
  /** Kinds of attention, with how many layers have each. */
  readonly attention: string;
  readonly parameters: number;
  readonly tokens: number;
  readonly window: number;
  readonly loss: number;
  readonly perplexity: number;
  readonly bitsPerByte: number;
  /** Bytes of keys and values at the window's length. */
  readonly kvBytes: number;
  /** Bytes of recurrent state, whatever the length. */
  readonly stateBytes: number;
  readonly tokensPerSecond: number;
}

/** The beginning of a text that a model counts as so many tokens; a character is never cut. */
function beginning(model: Model, whole: string, tokens: number): string {
  const ids = model.tokenizer!.encode(whole);
  if (ids.length <= tokens) return whole;
  let end = model.tokenizer!.decode(ids.slice(0, tokens)).length;
  // A token that ends within a character decodes to another one.
  while (end > 0 && model.tokenizer!.encode(whole.slice(0, end)).length > tokens) end--;
  if (end > 0 && /[\ud800-\udbff]/.test(whole[end - 1])) end--;
  return whole.slice(0, end);
}

/** Kinds of attention in order of the layers. */
function attentionText(model: Model): string {
  const counts = new Map<string, number>();
  for (const { core } of attentionsOf(model)) counts.set(core.kind, (counts.get(core.kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${count} ${kind}`).join(" + ");
}

/** Numbers in a checkpoint; a head that is the embedding's table is not counted again, nor are tables of angles. */
async function parametersOf(directory: string): Promise<number> {
  const config = JSON.parse(await Deno.readTextFile(`${directory}/config.json`));
  using checkpoint = await openCheckpoint(directory);
  const own = [...checkpoint.tensors].filter(([name]) =>
    !name.endsWith("rotary_emb.inv_freq") && !(config.tie_word_embeddings && name === "lm_head.weight")
  );
  return own.reduce((all, [, { elements }]) => all + elements, 0);
}

async function measure(name: string, model: Model): Promise<Line> {
  const ids = model.tokenizer!.encode(text);
  const size = Math.max(2, Math.min(window ?? model.config.contextLength, ids.length));
  const settings = { window: size, stride: Math.min(stride ?? size - 1, size - 1) };
  // The first window compiles what the others run.
  await score(model, ids.slice(0, size), settings);
  const start = performance.now();
  const result = await score(model, text, settings);
  const seconds = (performance.now() - start) / 1000;
  const plan = planRun(model, { promptTokens: size - 1, maxTokens: 1 });
  const sum = (of: "cacheBytes" | "stateBytes") => plan.layers.reduce((all, layer) => all + layer[of], 0);
  return {
    name,
    attention: attentionText(model),
    parameters: await parametersOf(model.directory),
    tokens: result.tokens,
    window: size,
    loss: result.meanNll,
    perplexity: result.perplexity,
    bitsPerByte: result.bitsPerByte!,
    kvBytes: sum("cacheBytes"),
    stateBytes: sum("stateBytes"),
    tokensPerSecond: result.tokens / seconds,
  };
}

using gpu = await openGpu();
const lines: Line[] = [];
let cut = false;
for (const { name, path } of folders) {
  try {
    using model = await loadModel(gpu, path, { dtype });
    if (!model.tokenizer) throw new TypeError("It has no tokenizer, and what is scored is text");
    if (limit !== undefined && !cut) text = beginning(model, text, limit);
    cut = true;
    lines.push(await measure(name, model));
    console.error(`${name}: ${lines.at(-1)!.tokens} tokens`);
  } catch (error) {
    console.error(`${name} is left out: ${error instanceof Error ? error.message : error}`);
  }
}
if (lines.length === 0) fail("No model could be scored");

console.log(
  `${new TextEncoder().encode(text).length} bytes of ${options.text || "prose that comes along"}, ${dtype}:`,
);
console.log(textTable([
  ["", "perplexity", "loss", "bits/byte", "parameters", "KV", "state", "tokens/s", "window", "attention"],
  ...lines.map((line) => [
    line.name,
    line.perplexity.toFixed(2),
    line.loss.toFixed(4),
    line.bitsPerByte.toFixed(4),
    line.parameters.toLocaleString("en"),
    line.kvBytes > 0 ? formatBytes(line.kvBytes) : "–",
    line.stateBytes > 0 ? formatBytes(line.stateBytes) : "–",
    line.tokensPerSecond.toFixed(0),
    String(line.window),
    line.attention,
  ]),
]));
if (options.out !== "") {
  const names = Object.keys(lines[0]) as (keyof Line)[];
  const heads = names.map((name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
  writeText(
    options.out,
    "language_models.csv",
    csv([heads, ...lines.map((line) => names.map((name) => line[name]))]),
  );
}
