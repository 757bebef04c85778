import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { CHATML, MODEL } from "./fake_io.ts";
import { modelCopy } from "./model_copy.ts";
import { cairn } from "./run_cairn.ts";

const CALL = ["plan", "--model", MODEL];

async function planned(...args: string[]) {
  const { code, stdout, stderr } = await cairn([...CALL, ...args, "--json"]);
  assertEquals([code, stderr], [0, ""]);
  return JSON.parse(stdout);
}

Deno.test("plan --json prints layers, bytes and kernels; cache and weights as generate reports them", async () => {
  const lengths = ["--prompt-ids", "634,3176,5", "--max-tokens", "9", "--dtype", "f32"];
  const plan = await planned(...lengths);
  assertEquals(Object.keys(plan), ["layers", "bytes", "kernels"]);
  assertEquals(plan.layers.length, 6);
  assertEquals(plan.layers.map(({ index }: { index: number }) => index), [0, 1, 2, 3, 4, 5]);
  let sum = 0;
  for (const { kind, cacheTokens, cacheBytes, stateBytes } of plan.layers) {
    assertEquals([kind, cacheTokens, stateBytes], ["kv", 3, 0]);
    sum += cacheBytes + stateBytes;
  }
  assertEquals(plan.bytes.cache, sum);
  assertEquals(typeof plan.kernels[0].name, "string");
  assertEquals(plan.kernels[0].count > 0, true);
  const { bytes } = JSON.parse((await cairn(["generate", "--model", MODEL, ...lengths, "--json"])).stdout);
  assertEquals([plan.bytes.cache, plan.bytes.weights], [bytes.cache, bytes.weights]);
});

Deno.test("plan counts the tokens of a prompt, also of a chat", async () => {
  const { layers: [{ cacheTokens }] } = await planned("--prompt", "The rain had not stopped for");
  assertEquals(cacheTokens, 6);
  const chat = await planned("--prompt", "Hello", "--system", "Be kind.", "--chat-template", CHATML);
  const { usage } = JSON.parse(
    (await cairn([
      ...["generate", "--model", MODEL, "--prompt", "Hello", "--system", "Be kind."],
      ...["--chat-template", CHATML, "--max-tokens", "1", "--json"],
    ])).stdout,
  );
  assertEquals(chat.layers[0].cacheTokens, usage.promptTokens);
});

Deno.test("plan counts every sequence", async () => {
  const one = await planned("--prompt-tokens", "16", "--max-tokens", "16");
  const four = await planned("--prompt-tokens", "16", "--max-tokens", "16", "--sequences", "4");
  assertEquals(four.bytes.cache, 4 * one.bytes.cache);
  assertEquals(four.layers[0].cacheTokens, 64);
});

Deno.test("plan prints tables, with lengths that fit where none are given", async () => {
  const { code, stdout } = await cairn(CALL);
  assertEquals(code, 0);
  assertMatch(stdout, /^llama, f16: 1 sequence of 512 prompt tokens \+ 256 new tokens$/m);
  assertMatch(stdout, /^ +5 +kv +512 +192\.0 KiB +0 B$/m);
  assertMatch(stdout, /^ +weights +3\.12 MiB$/m);
  assertMatch((await cairn([...CALL, "--max-tokens", "2000"])).stdout, /48 prompt tokens \+ 2000 new tokens/);
  assertMatch(
    (await cairn([...CALL, "--prompt-tokens", "2000"])).stdout,
    /2000 prompt tokens \+ 48 new tokens/,
  );
});

Deno.test("plan needs neither weights nor tokenizer, but looks at the header of weights", async () => {
  await using bare = await modelCopy({ without: ["model.safetensors", "tokenizer.json"] });
  const { code, stdout } = await cairn(["plan", "--model", bare.directory, "--json"]);
  assertEquals([code, JSON.parse(stdout).bytes.weights], [0, (await planned()).bytes.weights]);
  const refused = await cairn(["plan", "--model", bare.directory, "--prompt", "a"]);
  assertEquals(refused.code, 2);
  assertStringIncludes(refused.stderr, "no tokenizer.json: give --prompt-tokens or --prompt-ids");

  await using wider = await modelCopy({ config: { intermediate_size: 384 } });
  const other = await cairn(["plan", "--model", wider.directory]);
  assertEquals([other.code, other.stdout], [1, ""]);
  assertMatch(other.stderr, /Tensor .*mlp.* has shape \[352, 128\], config\.json asks for \[384, 128\]/);

  await using extra = await modelCopy({ extraTensor: "model.surplus" });
  assertStringIncludes((await cairn(["plan", "--model", extra.directory])).stderr, "not used: model.surplus");
});

for (
  const [name, args, message] of [
    ["no tokens", ["--prompt-tokens", "0"], "--prompt-tokens must be a whole number of at least 1"],
    ["no sequences", ["--sequences", "0"], "--sequences must be"],
    ["more than the context", ["--prompt-tokens", "2048"], "at least one must be left"],
    [
      "more than the context leaves",
      ["--prompt-tokens", "2000", "--max-tokens", "49"],
      "--max-tokens 49 are over",
    ],
    ["two lengths", ["--prompt-tokens", "5", "--prompt", "a"], "both give a length"],
    ["half a chat", ["--system", "a"], "add --prompt TEXT"],
  ] as const
) {
  Deno.test(`plan with ${name} is a wrong call`, async () => {
    const { code, stdout, stderr } = await cairn([...CALL, ...args]);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, message);
  });
}
