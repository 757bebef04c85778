import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { WrongCall } from "../../lib/cli/errors.ts";
import { FLAG_NAMES } from "../../lib/cli/flags.ts";
import { parseFlags } from "../../lib/cli/parse.ts";
import { keptByLayer, settings } from "../../lib/cli/prune.ts";
import {
  generate,
  KV_POLICIES,
  loadModel,
  type Model,
  openGpu,
  pyramidInfer,
  score,
  withKvPruning,
} from "../../mod.ts";
import { CHATML, MODEL, ROOT } from "./fake_io.ts";
import { cairn } from "./run_cairn.ts";

/** Ids of a prompt that is long enough to be pruned in every layer. */
const PROMPT_IDS = Array.from({ length: 300 }, (_, i) => 1 + i * 37 % 4000);
const LENGTHS = ["--model", MODEL, "--prompt-ids", PROMPT_IDS.join(), "--max-tokens", "12"];
const HALF = "pyramid-infer:keep=0.45";

async function json(args: readonly string[]) {
  const { code, stdout, stderr } = await cairn([...args, "--json"]);
  assertEquals([code, stderr], [0, ""]);
  return JSON.parse(stdout);
}

/** What the library does with the same model, pruned. */
async function withPruned<T>(work: (model: Model) => Promise<T>): Promise<T> {
  using gpu = await openGpu();
  using model = await loadModel(gpu, join(ROOT, MODEL));
  return await work(withKvPruning(pyramidInfer({ keep: 0.45 }))(model));
}

Deno.test("parseFlags() reads a policy and its options", () => {
  const { prune } = parseFlags("generate", ["--prune", "pyramid-infer:keep=0.5,same-layer"], FLAG_NAMES);
  assertEquals([prune?.name, prune?.options], ["pyramid-infer", { keep: 0.5, sameLayer: true }]);
});

for (
  const [text, ...messages] of [
    ["piramid-infer", '"piramid-infer"', "pyramid-infer"],
    ["pyramid-infer:keap=1", "keep, cache-tokens"],
    ["pyramid-infer:keep=1.5", "keep must be above 0 and at most 1", "received 1.5"],
    ["pyramid-infer:min-context=-1", "min-context must be a whole number from 0", "received -1"],
    ["pyramid-infer:preset=llama9", "llama2-7b, llama2-13b", 'received "llama9"'],
    ["pyramid-infer:same-layer=sameLayer", "same-layer must be true or false: received sameLayer"],
    ["pyramid-infer:keep=0.5,cache-tokens=9", "keep and cache-tokens exclude each other"],
  ]
) {
  Deno.test(`parseFlags() refuses --prune ${text}`, () => {
    const error = assertThrows(() => parseFlags("plan", ["--prune", text], FLAG_NAMES), WrongCall);
    for (const message of [`--prune ${text}: `, ...messages]) assertStringIncludes(error.message, message);
  });
}

Deno.test("plan --prune prints full and pruned bytes of every layer", async () => {
  const full = await json(["plan", ...LENGTHS]);
  const { layers, bytes } = await json(["plan", ...LENGTHS, "--prune", HALF]);
  const sum = (field: string) =>
    layers.reduce((all: number, layer: Record<string, number>) => all + layer[field], 0);
  assertEquals(
    layers.map(({ fullBytes }: { fullBytes: number }) => fullBytes),
    full.layers.map(({ cacheBytes }: { cacheBytes: number }) => cacheBytes),
  );
  assertEquals([bytes.fullCache, bytes.cache], [full.bytes.cache, sum("cacheBytes")]);
  assertEquals(bytes.fullCache, sum("fullBytes"));
  assertEquals(Object.hasOwn(full.bytes, "fullCache"), false);
  const tokens: number[] = layers.map(({ cacheTokens }: { cacheTokens: number }) => cacheTokens);
  assertEquals(tokens, tokens.toSorted((a, b) => b - a));
  assert(tokens[0] < 300 && tokens[5] < tokens[0], tokens.join());

  const { code, stdout } = await cairn(["plan", ...LENGTHS, "--prune", HALF]);
  assertEquals(code, 0);
  const percent = (bytes.cache / bytes.fullCache * 100).toFixed(1);
  assertMatch(stdout, new RegExp(`^Pruned by pyramid-infer: cache .*KiB of .*KiB \\(${percent} %\\)$`, "m"));
  assertMatch(stdout, /^Settled: share 0\.4\d*, prefill-decay 0\.\d+, .*same-layer true/m);
  assertMatch(stdout, /^ +layer +kind +tokens +cache +in full +state$/m);
  assertMatch(stdout, new RegExp(`^ +5 +kv +${tokens[5]} +[\\d.]+ KiB +[\\d.]+ KiB +0 B$`, "m"));
  assertEquals(stdout.includes("fullCache"), false);
});

Deno.test("generate --prune --json prints what the library gives, in the bytes that plan tells", async () => {
  const args = [...LENGTHS, "--prune", HALF];
  const record = await json(["generate", ...args, "--temperature", "0", "--trace-kept"]);
  const { ids, text } = await withPruned((model) =>
    generate(model, PROMPT_IDS, { maxTokens: 12, temperature: 0 }).record
  );
  assertEquals([record.ids, record.text], [ids, text]);
  const { layers, bytes } = await json(["plan", ...args]);
  assertEquals([record.bytes.cache, record.bytes.weights], [bytes.cache, bytes.weights]);
  assertEquals(record.pruning.policy, "pyramid-infer");
  assertEquals(record.pruning.options, { keep: 0.45 });
  assert(record.pruning.settled.share <= 0.45 && record.pruning.settled.share >= 0.95 * 0.45);
  assertEquals(record.cacheTokens.length, layers.length);
  for (const [layer, kept] of (record.kept as number[][]).entries()) {
    assertEquals(kept.length, layers[layer].cacheTokens);
    assertEquals(kept, [...new Set(kept)].sort((a, b) => a - b));
    assertEquals([...kept.slice(0, 4), kept.at(-1)], [0, 1, 2, 3, 299]);
  }
});

Deno.test("generate --trace-kept tells the positions of each head where heads differ", async () => {
  const args = ["generate", ...LENGTHS.slice(0, -1), "1", "--prune", `${HALF},per-kv-head`, "--trace-kept"];
  const { kept } = await json(args);
  assertEquals(kept.map((heads: number[][]) => heads.length), [2, 2, 2, 2, 2, 2]);
  for (const [first, second] of kept as number[][][]) assertEquals(first.length, second.length);
  assert((kept as number[][][]).some(([first, second]) => first.join() !== second.join()));
});

Deno.test("generate --trace-kept tells every position where nothing is pruned", async () => {
  const args = ["generate", "--model", MODEL, "--prompt-ids", "5,6,7", "--max-tokens", "2", "--trace-kept"];
  const { kept, cacheTokens, pruning } = await json(args);
  assertEquals([kept, cacheTokens, pruning], [new Array(6).fill([0, 1, 2]), new Array(6).fill(4), undefined]);
});

Deno.test("keptByLayer() gives each layer's positions, or each head's in all layers", () => {
  assertEquals(keptByLayer([[[1, 2], [1, 2]], [[3], [3]]]), [[1, 2], [3]]);
  assertEquals(keptByLayer([[[1, 2], [1, 2]], [[3], [4]]]), [[[1, 2], [1, 2]], [[3], [4]]]);
  assertEquals(keptByLayer([]), []);
});

Deno.test("settings() names what is set, as it is written on the command line", () => {
  assertEquals(
    settings({ genDecay: 0.123456, caps: [3, 2], sameLayer: true, rowCap: undefined }),
    "gen-decay 0.1235, caps 3 2, same-layer true",
  );
  assertEquals(settings(undefined), "");
});

Deno.test("generate --prune tells on stderr what is left of the cache", async () => {
  const { code, stderr } = await cairn(["generate", ...LENGTHS, "--prune", HALF]);
  assertEquals(code, 0);
  const { bytes } = await json(["plan", ...LENGTHS, "--prune", HALF]);
  const percent = (bytes.cache / bytes.fullCache * 100).toFixed(1);
  assertMatch(
    stderr,
    new RegExp(`^pruning +pyramid-infer: cache [\\d.]+ KiB of [\\d.]+ KiB \\(${percent} %\\)$`, "m"),
  );
  assertMatch(stderr, /^settled +share 0\.4\d*, prefill-decay/m);
  assertEquals((await cairn(["generate", ...LENGTHS])).stderr.includes("pruning"), false);
});

Deno.test("generate --prune with everything kept writes what the whole model writes", async () => {
  const full = await json(["generate", ...LENGTHS, "--seed", "7"]);
  const kept = await json(["generate", ...LENGTHS, "--seed", "7", "--prune", "pyramid-infer:keep=1"]);
  assertEquals([kept.ids, kept.cacheTokens], [full.ids, full.cacheTokens]);
});

Deno.test("score --prune scores with the pruned model", async () => {
  const ids = PROMPT_IDS.slice(0, 80);
  const args = ["score", "--model", MODEL, "--prompt-ids", ids.join(), "--window", "64", "--stride", "32"];
  const { meanNll } = await json([...args, "--prune", HALF]);
  const same = await withPruned((model) => score(model, ids, { window: 64, stride: 32 }));
  assertEquals(meanNll, same.meanNll);
  assert(meanNll !== (await json(args)).meanNll);
});

const CHAT = ["chat", "--model", MODEL, "--chat-template", CHATML, "--max-tokens", "8", "--ignore-eos"];

Deno.test("chat --prune keeps less than it has read, over several turns", async () => {
  const stdin = `${"The rain had not stopped for a week. ".repeat(8)}\n${"And then it did. ".repeat(8)}\n`;
  const { code, stderr } = await cairn([...CHAT, "--prune", "pyramid-infer:keep=0.6"], { stdin });
  assertEquals(code, 0);
  const turns = [...stderr.matchAll(/; (\d+) of 2048 in use, (\d+) of them in a layer's cache\]/g)]
    .map(([, read, kept]) => [Number(read), Number(kept)]);
  assertEquals(turns.length, 2);
  for (const [read, kept] of turns) assert(kept > 0 && kept <= 0.7 * read, `${kept} of ${read}`);
});

Deno.test("chat --prune goes on at a terminal after a message too short for its budget, and fails in a pipe", async () => {
  const args = [...CHAT, "--prune", "pyramid-infer:keep=0.25"];
  const stdin = `Hello\n${"The rain had not stopped for a week. ".repeat(8)}\n`;
  const typed = await cairn(args, { stdin, terminals: ["stdin"] });
  assertEquals(typed.code, 0);
  assertMatch(
    typed.stderr,
    /cairn: --prune .*keep must be from [\d.]+ to 1 for \d+ tokens and 8 new ones/,
  );
  assertEquals(typed.stderr.split("of them in a layer's cache").length, 2);
  const piped = await cairn(args, { stdin });
  assertEquals([piped.code, piped.stdout], [2, ""]);
});

for (const command of ["generate", "plan", "score"]) {
  Deno.test(`${command} refuses a budget that cannot be met with the smallest that can`, async () => {
    const args = command === "score"
      ? ["--prompt-ids", "1,2,3,4,5,6", "--window", "6", "--stride", "2"]
      : ["--prompt-ids", "1,2,3,4,5,6", "--max-tokens", "20"];
    const call = (keep: string) =>
      cairn([command, "--model", MODEL, ...args, "--prune", `pyramid-infer:keep=${keep}`]);
    const { code, stdout, stderr } = await call("0.1");
    assertEquals([code, stdout, stderr.split("\n").length], [2, "", 2]);
    const [, least] =
      /^cairn: --prune pyramid-infer:keep=0\.1: keep must be from ([\d.]+) to 1 for /.exec(stderr) ?? [];
    assert(Number(least) > 0.1, stderr);
    assertEquals((await call(least)).code, 0);
  });
}

for (
  const [args, message] of [
    [["generate", ...LENGTHS, "--prune", "nothing"], "There is no policy"],
    [["generate", ...LENGTHS, "--prune", "pyramid-infer:start-layer=6"], "start-layer must be from 0 to 5"],
    [["plan", ...LENGTHS, "--prune", "pyramid-infer:start-layer=6"], "start-layer must be from 0 to 5"],
    [["plan", ...LENGTHS, "--prune", "pyramid-infer:cache-tokens=900"], "cache-tokens must be from"],
    [["generate", ...LENGTHS, "--trace-kept"], "--trace-kept is told in JSON alone: add --json"],
    [["info", "--prune", HALF], "cairn info has no --prune"],
  ] as const
) {
  Deno.test(`cairn ${args[0]} ${args.slice(-2).join(" ")} is a wrong call`, async () => {
    const { code, stdout, stderr } = await cairn(args);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, message);
  });
}

Deno.test("help prune lists every policy and option, within 100 columns, with examples that are right", async () => {
  const { code, stdout } = await cairn(["help", "prune"]);
  assertEquals(code, 0);
  for (const line of stdout.split("\n")) assert(line.length <= 100, line);
  for (const [name, { summary, options }] of Object.entries(KV_POLICIES)) {
    const part = stdout.slice(stdout.indexOf(`\n  ${name}\n    ${summary}\n`)).split("\n\n")[0];
    for (const option of Object.keys(options)) {
      const written = option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      assertMatch(part, new RegExp(`[ ]${written}[=,\\n]|[ ]${written}$`));
    }
  }
  const examples = [...stdout.matchAll(/^ {2}(--prune) (\S+)$/gm)];
  assert(examples.length > 0);
  for (const [, ...args] of examples) parseFlags("plan", args, FLAG_NAMES);
});
