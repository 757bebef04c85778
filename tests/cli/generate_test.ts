import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { generate, loadModel, openGpu, renderChat } from "../../mod.ts";
import { main } from "../../lib/cli/main.ts";
import { CHATML, fakeIo, MODEL, ROOT } from "./fake_io.ts";
import { modelCopy } from "./model_copy.ts";
import { cairn } from "./run_cairn.ts";

const OPENING = "The rain had not stopped for";
const CALL = ["generate", "--model", MODEL, "--max-tokens", "24", "--seed", "7"];

/** What the library gives for the same call. */
async function expected(prompt: string, maxTokens = 24) {
  using gpu = await openGpu();
  using model = await loadModel(gpu, join(ROOT, MODEL));
  const record = await generate(model, prompt, { maxTokens, seed: 7 }).record;
  return { record, isFallback: gpu.adapter.isFallback };
}

Deno.test("generate writes the text piece by piece and statistics on stderr", async () => {
  const { code, stdout, stderr, writes } = await cairn([...CALL, "--prompt", OPENING]);
  const { record } = await expected(OPENING);
  assertEquals([code, stdout], [0, record.text]);
  assert(writes.length > 1, `${writes.length} writes`);
  assertMatch(stderr, /^tokens +6 prompt \+ 24 new, ended by length, seed 7$/m);
  assertMatch(
    stderr,
    /^time +load \d+ ms, first token \d+ ms, prefill \d+ tokens\/s, decode \d+ tokens\/s$/m,
  );
  assertMatch(stderr, /^memory +weights [\d.]+ MiB, cache .+, activations .+, peak .+; \d+ read-backs$/m);
});

Deno.test("generate --quiet writes nothing on stderr, also on a terminal", async () => {
  const { code, stdout, stderr } = await cairn([...CALL, "--prompt", OPENING, "--quiet"], {
    terminals: ["stderr"],
    card: { vendor: "NVIDIA" },
  });
  assertEquals([code, stderr], [0, ""]);
  assert(stdout.length > 0);
});

Deno.test("generate shows progress on a terminal only, and ends its line there", async () => {
  const { stdout, stderr } = await cairn([...CALL, "--prompt", OPENING], { terminals: ["stdout", "stderr"] });
  assertMatch(stderr, /\r.{3}Loading \d+ % of [\d.]+ MiB\r/);
  assert(stderr.lastIndexOf("\r\x1b[K") < stderr.indexOf("tokens "), "the status line is taken away");
  assertEquals(stdout.endsWith("\n"), true);
  const piped = await cairn([...CALL, "--prompt", OPENING]);
  assertEquals(piped.stderr.includes("\r"), false);
  assertEquals(stdout, `${piped.stdout}\n`);
});

Deno.test("generate --json prints one object with the record's fields, read back in few submits", async () => {
  const { code, stdout, stderr, writes } = await cairn(
    ["generate", "--model", MODEL, "--max-tokens", "64", "--seed", "7", "--prompt", OPENING, "--json"],
    { terminals: ["stdout"] },
  );
  assertEquals([code, stderr, writes.length], [0, "", 1]);
  const json = JSON.parse(stdout);
  const { record } = await expected(OPENING, 64);
  assertEquals(Object.keys(json).sort(), [
    "bytes",
    "cacheTokens",
    "finishReason",
    "ids",
    "promptIds",
    "readbacks",
    "seed",
    "text",
    "timing",
    "usage",
  ]);
  const { timing, ...rest } = json;
  const { timing: times, ...same } = record;
  assertEquals(rest, same);
  assertEquals(Object.keys(timing).sort(), Object.keys(times).sort());
  assertEquals(Object.values(timing).every((value) => typeof value === "number"), true);
  assert(json.readbacks <= 64 / 8 + 1, `${json.readbacks} read-backs`);
});

Deno.test("generate --logprobs is told in the JSON, or as a table on stderr", async () => {
  const args = [
    ...CALL.slice(0, 3),
    "--max-tokens",
    "3",
    "--seed",
    "7",
    "--prompt",
    OPENING,
    "--logprobs",
    "2",
  ];
  const { logprobs, ids } = JSON.parse((await cairn([...args, "--json"])).stdout);
  assertEquals(logprobs.map(({ id }: { id: number }) => id), ids);
  assertEquals(logprobs.map(({ top }: { top: unknown[] }) => top.length), [2, 2, 2]);
  const { stderr } = await cairn([...args, "--quiet"]);
  const [first, ...others] = stderr.trimEnd().split("\n");
  assertEquals(others.length, 2);
  assertStringIncludes(first, logprobs[0].logprob.toFixed(3));
  assertStringIncludes(first, logprobs[0].top[1].logprob.toFixed(3));
});

Deno.test("generate takes the prompt from stdin or a file, as it is", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(join(directory, "prompt.txt"), `${OPENING}\n`);
    const args = ["--model", join(ROOT, MODEL), "--max-tokens", "1", "--json"];
    const piped = await cairn(["generate", ...args], { stdin: `${OPENING}\n` });
    const file = await cairn(["generate", ...args, "--prompt-file", "prompt.txt"], { directory });
    const ids = JSON.parse(piped.stdout).promptIds;
    assertEquals(ids.length, 7);
    assertEquals(JSON.parse(file.stdout).promptIds, ids);
    const given = await cairn(["generate", ...args, "--prompt-ids", ids.join()]);
    assertEquals(JSON.parse(given.stdout).promptIds, ids);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("generate --system makes a chat of the prompt", async () => {
  const { code, stdout } = await cairn([
    ...CALL,
    "--json",
    ...["--system", "Be kind.", "--prompt", "Hello", "--chat-template", CHATML],
  ]);
  assertEquals(code, 0);
  using gpu = await openGpu();
  using model = await loadModel(gpu, join(ROOT, MODEL));
  assertEquals(
    JSON.parse(stdout).promptIds,
    renderChat(model.tokenizer!, [{ role: "system", content: "Be kind." }, {
      role: "user",
      content: "Hello",
    }], {
      template: await Deno.readTextFile(join(ROOT, CHATML)),
    }),
  );
});

Deno.test("generate hands every option on", async () => {
  // A bias of a million leaves no choice but 5; the stop string is its text.
  const { stdout } = await cairn([...CALL, "--prompt", OPENING, "--logit-bias", "5=1e6", "--json"]);
  assertEquals(JSON.parse(stdout).ids, new Array(24).fill(5));
  const stopped = await cairn([
    ...[
      ...CALL,
      "--prompt",
      OPENING,
      "--logit-bias",
      "0=1e6",
      "--json",
      "--dtype",
      "f32",
      "--batch-invariant",
    ],
    ...[
      "--temperature",
      "0.5",
      "--top-k",
      "5",
      "--top-p",
      "0.9",
      "--min-p",
      "0.1",
      "--repetition-penalty",
      "1.1",
    ],
    ...["--frequency-penalty", "-0.1", "--presence-penalty", "0.1", "--stop", "x", "--memory", "1GiB"],
  ]);
  assertEquals([stopped.code, JSON.parse(stopped.stdout).finishReason], [0, "stop"]);
  const ignored = await cairn([
    ...CALL,
    "--prompt",
    OPENING,
    "--logit-bias",
    "0=1e6",
    "--json",
    "--ignore-eos",
  ]);
  assertEquals(JSON.parse(ignored.stdout).finishReason, "length");
});

Deno.test("generate keeps what is written when Ctrl-C comes, and ends with 130", async () => {
  const args = ["generate", "--model", MODEL, "--max-tokens", "1500", "--ignore-eos", "--prompt", OPENING];
  const { code, stdout, stderr } = await cairn(args, {
    onWrite: (_, fake) => fake.writes.length === 2 && fake.interrupt(),
  });
  assertEquals(code, 130);
  const [, written] = /\+ (\d+) new, ended by aborted/.exec(stderr) ?? [];
  assert(stdout.length > 0 && Number(written) > 0 && Number(written) < 1500, stderr);
});

Deno.test("generate stops while it waits for stdin when Ctrl-C comes", async () => {
  let interrupt = () => {};
  const waiting = new ReadableStream<Uint8Array>({ pull: () => void setTimeout(interrupt, 0) });
  const fake = fakeIo({ stdin: waiting });
  interrupt = fake.interrupt;
  assertEquals([await main(["generate", "--model", MODEL], fake.io), fake.stdout, fake.stderr], [
    130,
    "",
    "",
  ]);
});

Deno.test("generate ends quietly when nobody reads on", async () => {
  const { code, stderr } = await cairn([...CALL, "--prompt", OPENING], {
    onWrite: (_, fake) => {
      if (fake.writes.length === 1) throw new Deno.errors.BrokenPipe("nobody reads");
    },
  });
  assertEquals([code, stderr], [0, ""]);
});

Deno.test("generate tells of a graphics card that lies idle", async () => {
  const { stderr } = await cairn([...CALL, "--prompt", OPENING], { card: { vendor: "AMD" } });
  const { isFallback } = await expected(OPENING);
  assertEquals(stderr.startsWith("warning: This machine has a graphics card from AMD"), isFallback);
});

Deno.test("generate writes ids where the model has no tokenizer, and refuses what needs one", async () => {
  await using copy = await modelCopy({ without: ["tokenizer.json"] });
  const args = ["generate", "--model", copy.directory, "--max-tokens", "5", "--seed", "7"];
  const { code, stdout } = await cairn([...args, "--prompt-ids", "634,3176"]);
  const json = JSON.parse((await cairn([...args, "--prompt-ids", "634,3176", "--json"])).stdout);
  assertEquals([code, stdout, json.text], [0, json.ids.join(), ""]);
  for (
    const more of [["--prompt", "a"], ["--prompt-ids", "1", "--stop", "a"], [
      "--prompt",
      "a",
      "--system",
      "b",
    ]]
  ) {
    const refused = await cairn([...args, ...more]);
    assertEquals(refused.code === 0, false);
    assertMatch(refused.stderr, /^cairn: .*(tokenizer)/);
  }
});

Deno.test("generate passes the model's warnings on", async () => {
  await using copy = await modelCopy({ extraTensor: "model.surplus" });
  const args = ["generate", "--model", copy.directory, "--max-tokens", "1", "--prompt", "a"];
  assertStringIncludes(
    (await cairn(args)).stderr,
    "warning: 1 tensors of the checkpoint are not used: model.surplus",
  );
  assertEquals((await cairn([...args, "--quiet"])).stderr, "");
});

const wrong: readonly (readonly [string, readonly string[], number, RegExp])[] = [
  ["no model", ["--prompt", "a"], 2, /--model is missing: add --model DIR/],
  ["no prompt on a terminal", ["--model", MODEL], 2, /There is no prompt: add --prompt TEXT/],
  ["two prompts", ["--model", MODEL, "--prompt", "a", "--prompt-ids", "1"], 2, /both give a prompt/],
  [
    "a system message before ids",
    ["--model", MODEL, "--system", "a", "--prompt-ids", "1"],
    2,
    /needs a text/,
  ],
  [
    "a chat without template",
    ["--model", MODEL, "--system", "a", "--prompt", "b"],
    2,
    /--chat-template FILE/,
  ],
  ["an id out of range", ["--model", MODEL, "--prompt-ids", "4096"], 2, /Token id 4096 .* 4096 ids/],
  [
    "too many tokens",
    ["--model", MODEL, "--prompt", "a", "--max-tokens", "2048"],
    2,
    /--max-tokens 2048 are over/,
  ],
  [
    "a negative temperature",
    ["--model", MODEL, "--prompt", "a", "--temperature", "-1"],
    2,
    /--temperature must/,
  ],
  ["too little memory", ["--model", MODEL, "--prompt", "a", "--memory", "1MiB"], 1, /ceiling is 1\.00 MiB/],
  ["no such folder", ["--model", "nowhere", "--prompt", "a"], 1, /model folder .*nowhere: there is none/],
  ["a file as folder", ["--model", "LICENSE", "--prompt", "a"], 1, /LICENSE is a file/],
  ["a folder without model", ["--model", "tests", "--prompt", "a"], 1, /no config\.json in .*tests/],
  [
    "no such prompt file",
    ["--model", MODEL, "--prompt-file", "nowhere"],
    1,
    /prompt file .*nowhere: there is none/,
  ],
  ["a folder as prompt file", ["--model", MODEL, "--prompt-file", "tests"], 1, /tests: it is a folder/],
  [
    "a prompt that is no text",
    ["--model", MODEL, "--prompt-file", `${MODEL}/model.safetensors`],
    1,
    /is not UTF-8/,
  ],
];

for (const [name, args, code, message] of wrong) {
  Deno.test(`generate with ${name} ends with ${code} and one sentence`, async () => {
    const call = await cairn(["generate", ...args, "--quiet"], { terminals: ["stdin"] });
    assertEquals([call.code, call.stdout], [code, ""]);
    assertMatch(call.stderr, message);
    assertEquals(call.stderr.split("\n").length, 2, call.stderr);
  });
}

Deno.test("generate --debug adds the stack to a failure", async () => {
  const { stderr } = await cairn(["generate", "--model", "nowhere", "--prompt", "a", "--debug"]);
  assertMatch(stderr, /^cairn: Cannot open/);
  assertStringIncludes(stderr, "files.ts:");
});
