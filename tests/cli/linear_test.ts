import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { wantsCheck } from "../../lib/cli/check.ts";
import { WrongCall } from "../../lib/cli/errors.ts";
import { FLAG_NAMES } from "../../lib/cli/flags.ts";
import { coresByLayer } from "../../lib/cli/linear.ts";
import { parseFlags } from "../../lib/cli/parse.ts";
import {
  describeModel,
  formatBytes,
  generate,
  LINEAR_CORES,
  loadModel,
  normAttention,
  openGpu,
  type PlanReport,
  score,
  withLinearAttention,
} from "../../mod.ts";
import { CHATML, MODEL, ROOT } from "./fake_io.ts";
import { modelCopy } from "./model_copy.ts";
import { cairn } from "./run_cairn.ts";

/** Longer than a block of the diagonal attention below, and no multiple of it. */
const PROMPT_IDS = Array.from({ length: 45 }, (_, i) => 1 + i * 37 % 4000);
const LENGTHS = ["--model", MODEL, "--prompt-ids", PROMPT_IDS.join(), "--max-tokens", "6"];
const SWAPS = ["--linear", "diag-attention:layers=0,block=16", "--linear", "norm-attention:layers=4-5"];
const WARNINGS =
  "warning: diag-attention in 1 of 6 attention layers (0) of a model that was not trained with it: " +
  "what it writes is not what the model would write\n" +
  "warning: norm-attention in 2 of 6 attention layers (4, 5) of a model that was not trained with it: " +
  "what it writes is not what the model would write\n";

async function json(args: readonly string[], stderr = "") {
  const call = await cairn([...args, "--json"]);
  assertEquals([call.code, call.stderr], [0, stderr]);
  return JSON.parse(call.stdout);
}

Deno.test("parseFlags() reads cores in the order in which they are given", () => {
  const { linear = [] } = parseFlags("generate", SWAPS, FLAG_NAMES);
  assertEquals(linear.map(({ name, text }) => [name, text]), [
    ["diag-attention", "diag-attention:layers=0,block=16"],
    ["norm-attention", "norm-attention:layers=4-5"],
  ]);
});

for (
  const [text, ...messages] of [
    ["norm-atention", 'no core "norm-atention": did you mean norm-attention?', "performer, retention"],
    ["diag-attention:blok=8", "did you mean block?", "layers, block, score, scale"],
    ["norm-attention:map=elu", "layers, feature-map, norm, epsilon, epsilon-placement, per-head"],
    ["norm-attention:layers=5-3", "numbers and ranges from 0, as 3-5 or 0-2/5", 'received "5-3"'],
    ["norm-attention:layers", "layers must be a text: received no value"],
    [
      "norm-attention:feature-map=sliu",
      "feature-map must be one of identity, elu, 1+elu,",
      'received "sliu"',
    ],
    ["norm-attention:per-head=no", 'per-head must be true or false: received "no"'],
    ["norm-attention:norm=rms,norm=none", "given norm twice"],
    ["diag-attention:block=0", "block must be a whole number from 1 to 1024"],
    ["diag-attention:block=x", 'block must be a whole number: received "x"'],
    ["diag-attention:block=", 'block must be a whole number: received ""'],
    ["diag-attention:scale=Infinity", "scale must be a number"],
    ["cosformer", "max-length must be a whole number from 1 to 16777216"],
    ["performer:features=6", "features must be a multiple of 4: current value is 6"],
    ["hybrid:gate=2", "gate must be over 0 and at most 1: current value is 2"],
  ]
) {
  Deno.test(`parseFlags() refuses --linear ${text}`, () => {
    const error = assertThrows(() => parseFlags("plan", ["--linear", text], FLAG_NAMES), WrongCall);
    for (const message of [`--linear ${text}: `, ...messages]) assertStringIncludes(error.message, message);
  });
}

for (
  const [linear, message] of [
    ["norm-attention:layers=5-6", "There is no attention layer 6: the model has 6, from 0 to 5"],
    ["gla", 'gla needs a projection "decay" that this layer does not have'],
    ["mamba2", 'mamba2 needs a projection "decay" that this layer does not have'],
    ["delta-net:layers=2", 'delta-net needs a projection "beta" that this layer does not have'],
    [
      "cosformer:layers=5,max-length=50",
      "over the longest sequence of its cosformer layers of 50: at most 5 are left",
    ],
  ]
) {
  for (const command of ["plan", "generate"]) {
    Deno.test(`${command} refuses --linear ${linear} for this model and length`, async () => {
      const { code, stdout, stderr } = await cairn([command, ...LENGTHS, "--linear", linear, "--quiet"]);
      assertEquals([code, stdout, stderr.split("\n").length], [2, "", 2]);
      assertStringIncludes(stderr, message);
    });
  }
}

Deno.test("generate refuses features that the kernels cannot take before weights are read", async () => {
  await using wide = await modelCopy({ without: ["model.safetensors"], config: { head_dim: 256 } });
  const args = ["generate", "--model", wide.directory, "--prompt-ids", "5,6"];
  const linear = "norm-attention:layers=1,feature-map=hedgehog";
  const { code, stderr } = await cairn([...args, "--linear", "retention:layers=0", "--linear", linear]);
  assertEquals(code, 2);
  assertMatch(
    stderr,
    /^cairn: --linear norm-attention:layers=1,feature-map=hedgehog: .*key-size .* from 4 to 256.* 512\n$/,
  );
});

Deno.test("plan --linear prints states beside the keys and values that they stand for", async () => {
  const full: PlanReport = await json(["plan", ...LENGTHS]);
  const { layers, bytes }: PlanReport = await json(["plan", ...LENGTHS, ...SWAPS], WARNINGS);
  for (const [i, { index, kind, cacheTokens, cacheBytes, stateBytes, kvBytes }] of layers.entries()) {
    const swaps = [0, 4, 5].includes(i);
    assertEquals([index, kind, cacheTokens], [i, swaps ? "state" : "kv", swaps ? 0 : PROMPT_IDS.length]);
    assertEquals(
      [cacheBytes, kvBytes],
      swaps ? [0, full.layers[i].cacheBytes] : [full.layers[i].cacheBytes, undefined],
    );
    assertEquals(stateBytes > 0, swaps);
  }
  const sum = (field: "cacheBytes" | "stateBytes") => layers.reduce((all, layer) => all + layer[field], 0);
  assertEquals(bytes.cache, sum("cacheBytes") + sum("stateBytes"));

  const { code, stdout, stderr } = await cairn(["plan", ...LENGTHS, ...SWAPS]);
  assertEquals([code, stderr], [0, WARNINGS]);
  const share = (sum("stateBytes") / (full.bytes.cache / 2) * 100).toFixed(1);
  assertMatch(
    stdout,
    new RegExp(
      "^Linear attention: diag-attention in layer 0, norm-attention in layers 4-5; state [\\d.]+ KiB in place of " +
        `[\\d.]+ KiB of keys and values \\(${share} %\\)$`,
      "m",
    ),
  );
  assertMatch(stdout, /^ +layer +kind +tokens +cache +state +as KV$/m);
  const size = formatBytes;
  const line = (...cells: string[]) => assertMatch(stdout, new RegExp(`^ +${cells.join(" +")}$`, "m"));
  line("0", "state", "0", "0 B", size(layers[0].stateBytes), size(full.layers[0].cacheBytes));
  line("1", "kv", "45", size(full.layers[1].cacheBytes), "0 B", size(full.layers[1].cacheBytes));
  line("sum", size(sum("cacheBytes")), size(sum("stateBytes")), size(full.bytes.cache));
});

Deno.test("plan --linear --prune prunes the softmax layers that remain", async () => {
  const args = ["plan", "--model", MODEL, "--prompt-tokens", "400", "--max-tokens", "10", "--quiet"];
  const all = [...args, "--linear", "norm-attention:layers=3-5", "--prune", "streaming-llm:cache-tokens=100"];
  const { layers, bytes }: PlanReport = await json(all);
  assertEquals(layers.map(({ kind }) => kind), ["kv", "kv", "kv", "state", "state", "state"]);
  assertEquals(layers.map(({ fullBytes = 0, cacheBytes }) => fullBytes > cacheBytes), [
    ...[true, true, true],
    ...[false, false, false],
  ]);
  assert(bytes.fullCache! > bytes.cache);
  const { stdout } = await cairn(all);
  assertMatch(stdout, /^ +layer +kind +tokens +cache +in full +state +as KV$/m);
  assertMatch(stdout, /^Linear attention: .*\nPruned by streaming-llm: cache/m);
});

Deno.test("coresByLayer() tells the last core that a layer got", async () => {
  using model = await describeModel(join(ROOT, MODEL));
  const { linear = [] } = parseFlags("plan", ["--linear", "retention", ...SWAPS], FLAG_NAMES);
  const result = linear.reduce((swapped, { transform }) => transform(swapped), model);
  assertEquals(
    coresByLayer(result),
    "diag-attention in layer 0, retention in layers 1-3, norm-attention in layers 4-5",
  );
  assertEquals(coresByLayer(model), "");
});

Deno.test("generate and score --linear print what the library gives, with --check in the same call", async () => {
  using gpu = await openGpu();
  using model = await loadModel(gpu, join(ROOT, MODEL));
  const lean = withLinearAttention(normAttention(), { layers: (layer) => layer === 5 })(model);
  const ids = PROMPT_IDS.slice(0, 20);
  const call = [
    "--model",
    MODEL,
    "--prompt-ids",
    ids.join(),
    "--linear",
    "norm-attention:layers=5",
    "--check",
  ];
  const compare = async (part: readonly number[]) => ({
    before: (await score(model, part)).perplexity,
    after: (await score(lean, part)).perplexity,
    tokens: part.length - 1,
  });
  const check = await compare(ids);
  const warning =
    "warning: norm-attention in 1 of 6 attention layers (5) of a model that was not trained with it: " +
    "what it writes is not what the model would write\n";

  const greedy = ["--max-tokens", "3", "--temperature", "0"];
  const expected = await generate(lean, ids, { maxTokens: 3, temperature: 0 }).record;
  const text = await cairn(["generate", ...call, ...greedy]);
  assertEquals([text.code, text.stdout], [0, expected.text]);
  const line = `check: perplexity ${check.before.toFixed(2)} before, ${
    check.after.toFixed(2)
  } after, on 19 tokens\n`;
  assert(text.stderr.startsWith(`${warning}${line}tokens `), text.stderr);
  assertMatch(
    text.stderr,
    /^linear +norm-attention in layer 5; state [\d.]+ KiB in place of .* of keys and values/m,
  );

  // A pruned model is not what is compared.
  const pruned = ["--prune", "streaming-llm:keep=1", "--trace-kept"];
  const record = await json(["generate", ...call, ...greedy, ...pruned], warning);
  assertEquals([record.ids, record.text, record.check], [expected.ids, expected.text, check]);
  const plain = (value: unknown) => JSON.parse(JSON.stringify(value));
  assertEquals([record.linearized, record.warnings], plain([expected.linearized, expected.warnings]));
  const lengths = [...call.slice(0, -1), "--max-tokens", "3", "--quiet"];
  const { bytes }: PlanReport = await json(["plan", ...lengths]);
  assertEquals([expected.bytes.cache, record.bytes.weights], [bytes.cache, bytes.weights]);

  const windows = { window: 8, stride: 4 };
  const { nll: _, ...scored } = await score(lean, ids, windows);
  const args = ["score", ...call, "--window", "8", "--stride", "4", "--quiet"];
  assertEquals(await json(args), { ...scored, check: await compare(ids.slice(0, 8)) });
});

Deno.test("generate --linear goes on beyond the model's context where no layer has a limit, and says so", async () => {
  await using short = await modelCopy({ config: { max_position_embeddings: 8 } });
  const call = ["generate", "--model", short.directory, "--prompt-ids", "5,6,7,8,9,10", "--max-tokens", "5"];
  const args = [...call, "--ignore-eos", "--linear", "norm-attention"];
  const { code, stderr } = await cairn(args);
  assertEquals(code, 0);
  assertMatch(stderr, /^warning: norm-attention in all 6 attention layers/);
  assertMatch(stderr, /^warning: 11 tokens are over the 8 that the model was made for/m);
  assertEquals(stderr.match(/^warning: /gm)?.length, 2);
  const limited = await cairn([...call, "--linear", "norm-attention:layers=1-5"]);
  assertEquals(limited.code, 2);
  assertStringIncludes(limited.stderr, "--max-tokens 5 are over the model's context of 8");
});

Deno.test("chat --linear answers over several turns, and warns once", async () => {
  const args = ["chat", "--model", MODEL, "--chat-template", CHATML, "--max-tokens", "4", "--ignore-eos"];
  const { code, stderr } = await cairn([...args, "--linear", "norm-attention:layers=4-5"], {
    stdin: "Hello\nAgain\n",
  });
  assertEquals(code, 0);
  assertEquals(stderr.match(/^warning: /gm)?.length, 1);
  assertEquals(stderr.match(/^\[\d+ tokens read, 4 written/gm)?.length, 2);
});

Deno.test("wantsCheck() says no where nobody is told", () => {
  const { linear } = parseFlags("score", SWAPS, FLAG_NAMES);
  assertEquals(wantsCheck({ check: true, linear }), true);
  assertEquals(wantsCheck({ check: true, linear, quiet: true }), false);
  assertEquals(wantsCheck({ check: true, linear, quiet: true, json: true }), true);
  assertEquals(wantsCheck({ linear }), false);
  assertEquals(wantsCheck({}), false);
});

for (
  const [args, message] of [
    [["generate", ...LENGTHS, "--check"], "before and after --linear: add --linear CORE"],
    [
      ["score", "--model", MODEL, "--prompt-ids", "5,6", "--check"],
      "before and after --linear: add --linear CORE",
    ],
    [
      ["generate", "--model", MODEL, "--prompt-ids", "7", "--linear", "norm-attention:layers=5", "--check"],
      "--check needs a prompt of at least 2 tokens, as the first is only context: this one has 1",
    ],
    [["plan", ...LENGTHS, ...SWAPS, "--check"], "cairn plan has no --check"],
    [["info", ...SWAPS], "cairn info has no --linear"],
    [["help", "lineer"], "did you mean linear?"],
  ] as const
) {
  Deno.test(`cairn ${args[0]} ${args.slice(-2).join(" ")} is a wrong call`, async () => {
    const { code, stdout, stderr } = await cairn(args);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, message);
  });
}

Deno.test("help linear lists every core and option, within 100 columns, with examples that are right", async () => {
  const { code, stdout } = await cairn(["help", "linear"]);
  assertEquals(code, 0);
  for (const line of stdout.split("\n")) assert(line.length <= 100, line);
  for (const [name, { summary, options }] of Object.entries(LINEAR_CORES)) {
    const part = stdout.slice(stdout.indexOf(`\n  ${name}\n    ${summary}\n`)).split("\n\n")[0];
    for (const option of Object.keys(options)) {
      const written = option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      assertMatch(part, new RegExp(`[ ]${written}[=,\\n]|[ ]${written}$`));
    }
  }
  for (const map of ["1+elu", "hedgehog", "squared-relu"]) assertStringIncludes(stdout, ` ${map}`);
  const examples = [...stdout.matchAll(/^ {2}(--linear .*)$/gm)];
  assert(examples.length > 0);
  for (const [, words] of examples) parseFlags("plan", words.split(" "), FLAG_NAMES);
  assertStringIncludes((await cairn(["help"])).stdout, "help linear");
});
