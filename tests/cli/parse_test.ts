import { assertEquals, assertThrows } from "@std/assert";
import { WrongCall } from "../../lib/cli/errors.ts";
import { FLAG_NAMES } from "../../lib/cli/flags.ts";
import { parseFlags, required } from "../../lib/cli/parse.ts";

const parse = (...args: string[]) => parseFlags("generate", args, FLAG_NAMES);

Deno.test("parseFlags() reads values by their kinds", () => {
  assertEquals(parse("--seed", "7", "--prompt", "12", "--json", "--prompt-ids=1,2", "--top-p=.9"), {
    seed: 7,
    prompt: "12",
    json: true,
    "prompt-ids": [1, 2],
    "top-p": 0.9,
  });
});

Deno.test("parseFlags() gives nothing for what was not given", () => {
  assertEquals(parse(), {});
});

Deno.test("parseFlags() takes values that begin with a hyphen", () => {
  assertEquals(parse("--frequency-penalty", "-0.5", "--prompt", "- a list\n- of two"), {
    "frequency-penalty": -0.5,
    prompt: "- a list\n- of two",
  });
  assertEquals(parse("--prompt=--json"), { prompt: "--json" });
});

Deno.test("parseFlags() takes equal signs, newlines and quotes inside a value", () => {
  assertEquals(parse("--prompt=a=b", "--system", 'c=\n"d"'), { prompt: "a=b", system: 'c=\n"d"' });
});

Deno.test("parseFlags() collects what may be given several times", () => {
  assertEquals(parse("--stop", "a", "--stop", "b"), { stop: ["a", "b"] });
});

Deno.test("parseFlags() checks nothing where help is asked for", () => {
  assertEquals(parse("--nonsense", "--seed", "x", "--help"), { help: true });
  assertEquals(parse("-h"), { help: true });
});

const refused: readonly (readonly [string[], string])[] = [
  [["--temprature", "1"], "There is no --temprature: did you mean --temperature?"],
  [["--max_tokens=1"], "There is no --max_tokens: did you mean --max-tokens?"],
  [["--maxTokens", "1"], "did you mean --max-tokens?"],
  [["--temp", "1"], "did you mean --temperature?"],
  [["--xyzzy"], "There is no --xyzzy: cairn generate --help lists the flags"],
  [["--no-json"], "There is no --no-json"],
  [["--constructor"], "There is no --constructor"],
  [["--a.b", "1"], "There is no --a.b"],
  [["-x"], "There is no -x"],
  [["--seed", "1", "--seed=2"], "--seed is given 2 times: give it once"],
  [["--json", "--json"], "--json is given 2 times"],
  [["--seed"], "--seed needs a value: write --seed N"],
  [["--seed="], "--seed needs a value"],
  [["--prompt", ""], "--prompt needs a value"],
  [["--prompt", "--json"], "--prompt needs a value before --json: a value with -- goes --prompt=--json"],
  [["--json=yes"], "--json takes no value"],
  [["--seed", "x"], "--seed takes a whole number"],
  [["--prompt", "The", "rain"], '"rain" belongs to no flag'],
  [["12"], '"12" belongs to no flag'],
  [["--json", "--", "rain"], '"rain" belongs to no flag'],
];

for (const [args, message] of refused) {
  Deno.test(`parseFlags() refuses ${args.join(" ")}`, () => {
    assertThrows(() => parse(...args), WrongCall, message);
  });
}

Deno.test("parseFlags() says of another command's flag that this one lacks it", () => {
  assertThrows(
    () => parseFlags("chat", ["--window", "5"], ["model"]),
    WrongCall,
    "cairn chat has no --window: cairn chat --help lists what it has",
  );
});

Deno.test("required() gives the value, or says which flag is missing", () => {
  assertEquals(required({ model: "a" }, "model"), "a");
  assertThrows(() => required({}, "model"), WrongCall, "--model is missing: add --model DIR");
});
