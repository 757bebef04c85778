// The main job: prose from a real model as it comes, a question about a note a thousand tokens back, and the same question
// to the same model with less than half of its KV cache.
//
//   sh setup.sh demo

import {
  formatBytes,
  generate,
  type GenerateRecord,
  loadModel,
  openGpu,
  pyramidInfer,
  withKvPruning,
} from "../mod.ts";
import { textWithNotes } from "./notes_text.ts";

const started = performance.now();
const write = async (bytes: Uint8Array) => {
  for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
};
const print = (text: string) => write(new TextEncoder().encode(text));

using gpu = await openGpu();
using model = await loadModel(gpu, new URL("./models/novel-llama", import.meta.url).pathname);
await print(
  `${gpu.adapter.description || gpu.adapter.vendor}, ${model.dtype}, ${model.config.modelType}\n\n`,
);

const opening = "The rain had not stopped for";
const prose = generate(model, opening, { maxTokens: 120, seed: 7 });
await print(opening);
let firstAt: number | undefined;
for await (const piece of prose) {
  firstAt ??= performance.now();
  await write(piece.bytes);
}
await print("\n\n");

const { text, thing } = textWithNotes("Jane Castle");
const question = generate(model, text, { maxTokens: 2, temperature: 0 });
const asked = text.slice(text.lastIndexOf("\n\n") + 2);
await print(`…${asked}`);
for await (const piece of question) await write(piece.bytes);
const answer = await question.record;
const isRight = ({ text }: GenerateRecord) => text.trim() === thing;
const verdict = (record: GenerateRecord) => isRight(record) ? "right" : `wrong: it was ${thing}`;
const note = text.slice(0, text.indexOf(`${thing}.`));
const back = answer.usage.promptTokens - model.tokenizer!.encode(note).length;
await print(`\n${verdict(answer)}, from a note ${back} tokens back\n\n`);

const pruned = withKvPruning(pyramidInfer({ keep: 0.45 }))(model);
const prunedAnswer = await generate(pruned, text, { maxTokens: 2, temperature: 0 }).record;
const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
const sideBySide: [row: string, tell: (record: GenerateRecord) => string][] = [
  ["text", (record) => `…${asked}${record.text}`],
  ["answer", verdict],
  ["cache", ({ bytes: { cache } }) => `${formatBytes(cache)}, ${percent(cache / answer.bytes.cache)}`],
  ["tokens", ({ cacheTokens }) => `${cacheTokens.join(" ")} by layer`],
];
await print(`        ${"full cache".padEnd(46)}PyramidInfer, keep=0.45\n`);
for (const [row, tell] of sideBySide) {
  await print(`${row.padEnd(8)}${tell(answer).padEnd(46)}${tell(prunedAnswer)}\n`);
}
await print(
  isRight(prunedAnswer)
    ? "\n"
    : "The pruned model has lost the note: this model looks notes up in its last layer, where fewest tokens are kept.\n\n",
);

const describe = (name: string, { usage, timing, readbacks }: GenerateRecord) =>
  `${name}: ${usage.promptTokens} + ${usage.completionTokens} tokens, first after ` +
  `${timing.timeToFirstTokenMs.toFixed(0)} ms, then ${timing.decodeTokensPerSecond.toFixed(0)} tokens/s, ` +
  `${readbacks} read-backs`;
const record = await prose.record;
console.error(describe("prose", record));
console.error(describe("answer", answer));
console.error(describe("pruned answer", prunedAnswer));
console.error(
  `streaming began ${((firstAt ?? started) - started).toFixed(0)} ms after the start; ` +
    `weights ${formatBytes(record.bytes.weights)}, cache of the answer ${formatBytes(answer.bytes.cache)}, ` +
    `peak ${formatBytes(Math.max(...[record, answer, prunedAnswer].map(({ bytes }) => bytes.peak)))}`,
);
if (!isRight(answer)) Deno.exit(1);
