// Which tokens each layer kept, drawn over the prompt's own words: the pyramid.
//
//   deno run -A examples/pyramid.ts
//   deno run -A examples/pyramid.ts --prune snap-kv:keep=0.3 --prompt-file letter.txt --out pictures

import {
  generate,
  type GenerateRecord,
  type KvPolicy,
  loadModel,
  openGpu,
  parseKvPolicy,
  withKvPruning,
} from "../mod.ts";
import { promptsWithNotes } from "./notes_text.ts";
import { fail, readOptions, readText, writeText } from "./options.ts";
import { element, label, svgPage } from "./svg.ts";

const USAGE = `deno run -A examples/pyramid.ts [options]

Prints the prompt once for every layer, the top layer first: what the layer kept is coloured, what it dropped is dim. Tokens
that only some of its KV heads kept have another colour. Without colours (NO_COLOR, or no terminal) dots stand for dropped ones.

  --model DIR         the model (default: novel-llama of the examples)
  --prune POLICY      how its cache is pruned (default: pyramid-infer:keep=0.45)
  --prompt TEXT       the prompt (default: prose with notes, and a question about one of them)
  --prompt-file FILE  the prompt from a file
  --out DIR           writes pyramid.svg there`;

const options = readOptions(USAGE, {
  model: new URL("./models/novel-llama", import.meta.url).pathname,
  prune: "pyramid-infer:keep=0.45",
  prompt: "",
  "prompt-file": "",
  out: "",
});
if (options.prompt !== "" && options["prompt-file"] !== "") {
  fail("--prompt and --prompt-file exclude each other: leave one out");
}
const policy = policyOf(options.prune);

function policyOf(text: string): KvPolicy {
  try {
    return parseKvPolicy(text);
  } catch (error) {
    if (error instanceof RangeError) fail(`--prune ${text}: ${error.message}`);
    throw error;
  }
}

using gpu = await openGpu();
using model = await loadModel(gpu, options.model);
const { tokenizer } = model;
if (!tokenizer) fail("The model has no tokenizer, and prompts are texts: choose a model that has one");
const countTokens = (text: string) => tokenizer.encode(text).length;
const prompt = options.prompt ||
  (options["prompt-file"] !== ""
    ? readText("prompt-file", options["prompt-file"])
    : promptsWithNotes({ count: 1, tokens: 256, seed: 1, countTokens })[0].prompt);

const full = await run(undefined);
const record = await run(policy);

async function run(pruning: KvPolicy | undefined): Promise<GenerateRecord> {
  const one = pruning ? withKvPruning(pruning)(model) : model;
  try {
    return await generate(one, prompt, { maxTokens: 2, temperature: 0, traceKept: true }).record;
  } catch (error) {
    if (error instanceof RangeError) fail(error.message);
    throw error;
  }
}

/** The prompt's tokens as they are drawn: paragraphs run on, with a sign where one ends. */
const words = record.promptIds.map((id) => tokenizer.decode([id]).replaceAll("\n", "¶"));
/** By layer and token: the share of KV heads that kept it. */
const shares = record.kept!.map((heads) => {
  const counts = words.map(() => 0);
  for (const position of heads.flat()) counts[position]++;
  return counts.map((count) => count / heads.length);
});
/** Tokens in each layer's cache, as a mean over its heads. */
const kept = shares.map((layer) => layer.reduce((a, b) => a + b, 0));
const topFirst = shares.map((_, i) => shares.length - 1 - i);

const colored = !Deno.noColor && Deno.stdout.isTerminal();
/** A token as the terminal shows it. */
function shown(word: string, share: number): string {
  if (!colored) return share > 0 ? word : word.replace(/[^\s¶]/gu, "·");
  return share === 1
    ? `\x1b[32m${word}\x1b[0m`
    : share > 0
    ? `\x1b[33m${word}\x1b[0m`
    : `\x1b[2m${word}\x1b[0m`;
}

const round = (count: number) => count % 1 === 0 ? String(count) : count.toFixed(1);
const heading = `${options.prune}: ` +
  `${
    (100 * kept.reduce((a, b) => a + b, 0) / (kept.length * words.length)).toFixed(0)
  } % of the prompt's keys and values`;
console.log(`${heading}\n`);
for (const layer of topFirst) {
  console.log(`layer ${layer}, ${round(kept[layer])} of ${words.length} tokens`);
  console.log(`${words.map((word, i) => shown(word, shares[layer][i])).join("")}\n`);
}
const goesOn = `It goes on with ${JSON.stringify(record.text)}, and with the full cache ${
  JSON.stringify(full.text)
}.`;
console.log(goesOn);

if (options.out !== "") writeText(options.out, "pyramid.svg", picture());

/** Lines of tokens, each at most so many characters wide. */
function wrapped(width: number): { index: number; column: number; text: string }[][] {
  const lines: { index: number; column: number; text: string }[][] = [[]];
  let column = 0;
  words.forEach((word, index) => {
    const length = [...word].length;
    if (column > 0 && column + length > width) {
      lines.push([]);
      column = 0;
    }
    const text = column === 0 ? word.trimStart() : word;
    lines.at(-1)!.push({ index, column, text });
    column += [...text].length;
  });
  return lines;
}

/** The picture: a block of text for every layer, the top one on top, and the outline of what is kept at its left. */
function picture(): string {
  // Of a typewriter's face, whose characters are 0.6 of its size wide.
  const [size, columns, lineHeight] = [11, 124, 15];
  const advance = size * 0.6;
  const [left, side, gap, top] = [16, 190, 14, 74];
  const lines = wrapped(columns);
  const blockHeight = lines.length * lineHeight + gap;
  const textLeft = left + side + 24;
  const middle = left + side / 2;
  const halfWidth = (layer: number) => side / 2 * kept[layer] / words.length;
  const shapes = [
    label(left, 26, heading, { "font-size": 15, "font-weight": "bold" }),
    label(left, 46, goesOn, { fill: "#555" }),
  ];
  const right: [number, number][] = [];
  topFirst.forEach((layer, row) => {
    const y = top + row * blockHeight;
    const half = halfWidth(layer);
    right.push([middle + half, y], [middle + half, y + blockHeight - gap]);
  });
  // The outline on the right going down, then on the left going up.
  const mirrored = [...right].reverse().map(([x, y]): [number, number] => [2 * middle - x, y]);
  const bounds = [...right, ...mirrored].map(([x, y]) => `${x.toFixed(1)} ${y}`);
  shapes.push(
    element("rect", {
      x: left,
      y: top,
      width: side,
      height: blockHeight * topFirst.length - gap,
      fill: "#f4f4f4",
    }),
    element("path", { d: `M${bounds.join("L")}Z`, fill: "#bfe3cd", stroke: "#2e933c", "stroke-width": 1.5 }),
  );
  topFirst.forEach((layer, row) => {
    const y = top + row * blockHeight;
    const center = y + (blockHeight - gap) / 2;
    shapes.push(
      label(middle, center, `layer ${layer}`, { "text-anchor": "middle", "font-weight": "bold" }),
      label(middle, center + 15, `${round(kept[layer])} of ${words.length}`, { "text-anchor": "middle" }),
    );
    const face = { "font-family": "DejaVu Sans Mono, Menlo, Consolas, monospace", "font-size": size };
    const texts = lines.flatMap((line, i) =>
      line.map(({ index, column, text }) => {
        const share = shares[layer][index];
        const at = textLeft + column * advance;
        const base = y + i * lineHeight + 11;
        const ground = share === 0 ? "" : element("rect", {
          x: at,
          y: base - 10.5,
          width: [...text].length * advance,
          height: lineHeight - 1,
          fill: share === 1 ? "#bfe3cd" : "#f7e3a8",
        });
        const written = text.trimStart();
        const start = at + ([...text].length - [...written].length) * advance;
        return ground + label(start, base, written.trimEnd(), { fill: share === 0 ? "#b5b5b5" : "#111" });
      })
    );
    shapes.push(element("g", face, `\n${texts.join("\n")}\n`));
  });
  const height = top + blockHeight * topFirst.length + 10;
  return svgPage(textLeft + columns * advance + 16, height, shapes);
}
