import { assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { loadModel, openGpu, score } from "../../mod.ts";
import { main } from "../../lib/cli/main.ts";
import { fakeIo, MODEL, ROOT } from "./fake_io.ts";
import { cairn } from "./run_cairn.ts";

const TEXT = "The rain had not stopped for three days, and the river stood high.";

Deno.test("score --json prints the fields of a score, without those of single tokens", async () => {
  const args = ["score", "--model", MODEL, "--window", "8", "--stride", "2", "--json"];
  const { code, stdout, stderr } = await cairn(args, { stdin: TEXT });
  assertEquals([code, stderr], [0, ""]);
  using gpu = await openGpu();
  using model = await loadModel(gpu, join(ROOT, MODEL));
  const { nll, ...expected } = await score(model, TEXT, { window: 8, stride: 2 });
  assertEquals(JSON.parse(stdout), expected);
  assertEquals([expected.tokens, expected.window, expected.stride], [nll.length, 8, 2]);
});

Deno.test("score prints a summary, and progress on a terminal", async () => {
  const args = ["score", "--model", MODEL, "--prompt", TEXT];
  const { stdout, stderr } = await cairn(args, { terminals: ["stderr"] });
  const [, perplexity] = /^perplexity +([\d.]+)$/m.exec(stdout) ?? [];
  const [, loss] = /^mean loss +([\d.]+) nats a token$/m.exec(stdout) ?? [];
  assertAlmostEquals(Math.exp(Number(loss)), Number(perplexity), 0.01);
  assertMatch(stdout, /^bits per byte +[\d.]+$/m);
  assertMatch(stdout, /^window +2048 tokens, 1024 from one to the next$/m);
  assertMatch(stderr, /Scored \d+ of \d+ tokens/);
});

Deno.test("score knows no bytes of token ids", async () => {
  const args = ["score", "--model", MODEL, "--prompt-ids", "1,2,3"];
  assertEquals(JSON.parse((await cairn([...args, "--json"])).stdout).bitsPerByte, null);
  assertEquals((await cairn(args)).stdout.includes("byte"), false);
});

for (
  const [name, args, message] of [
    ["a window over the context", ["--window", "4096"], "--window must be from 2 to 2048"],
    ["a stride over the window", ["--window", "8", "--stride", "8"], "--stride must be from 1 to 7"],
    ["a sampling option", ["--temperature", "1"], "cairn score has no --temperature"],
  ] as const
) {
  Deno.test(`score with ${name} is a wrong call`, async () => {
    const { code, stdout, stderr } = await cairn(["score", "--model", MODEL, "--prompt", TEXT, ...args]);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, message);
  });
}

Deno.test("score of one token is a wrong call", async () => {
  const { code, stderr } = await cairn(["score", "--model", MODEL, "--prompt-ids", "5"]);
  assertEquals(code, 2);
  assertStringIncludes(stderr, "at least two tokens");
});

Deno.test("score ends with 130 when Ctrl-C comes, and prints nothing", async () => {
  const fake = fakeIo({ stdin: TEXT.repeat(20) });
  const stderr = {
    isTerminal: true,
    write: (text: string) => {
      if (text.includes("Scored")) fake.interrupt();
    },
  };
  const args = ["score", "--model", MODEL, "--window", "64", "--stride", "8"];
  assertEquals([await main(args, { ...fake.io, stderr }), fake.stdout], [130, ""]);
});
