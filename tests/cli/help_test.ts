import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { FLAG_NAMES } from "../../lib/cli/flags.ts";
import { parseFlags } from "../../lib/cli/parse.ts";
import { cairn } from "./run_cairn.ts";

const COMMANDS = ["generate", "chat", "score", "info", "plan"];

/** The words of a shell command, as far as help uses them. */
function words(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain);
}

Deno.test("help lists every command", async () => {
  for (const args of [["help"], ["--help"], ["-h"], ["help", "help"]]) {
    const { code, stdout, stderr } = await cairn(args);
    assertEquals([code, stderr], [0, ""]);
    for (const command of COMMANDS) assertMatch(stdout, new RegExp(`^  ${command} +\\S`, "m"));
  }
});

Deno.test("cairn without a command prints help on stderr and ends with 2", async () => {
  const { code, stdout, stderr } = await cairn([]);
  assertEquals([code, stdout], [2, ""]);
  assertStringIncludes(stderr, "Usage: deno task cairn COMMAND");
});

for (const command of COMMANDS) {
  Deno.test(`help of ${command} fits 100 columns and its examples are right calls`, async () => {
    const { code, stdout } = await cairn([command, "--help"]);
    assertEquals(code, 0);
    assertEquals((await cairn(["help", command])).stdout, stdout);
    for (const line of stdout.split("\n")) assert(line.length <= 100, line);
    const flags = FLAG_NAMES.filter((name) => new RegExp(`^  --${name}( |$)`, "m").test(stdout));
    const examples = stdout.replaceAll(" \\\n   ", "").split("\n").filter((line) =>
      line.startsWith("  deno task cairn ")
    );
    assert(examples.length > 0);
    for (const example of examples) {
      const [, , , name, ...args] = words(example);
      assertEquals(name, command);
      parseFlags(command, args, flags);
    }
  });
}

Deno.test("generate takes every flag but those of other commands", async () => {
  const { stdout } = await cairn(["generate", "--help"]);
  const missing = FLAG_NAMES.filter((name) => !new RegExp(`^  --${name}( |$)`, "m").test(stdout));
  assertEquals(missing, ["prompt-tokens", "sequences", "window", "stride", "context"]);
});

Deno.test("cairn --version prints the version of deno.json", async () => {
  const { version } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  assertEquals((await cairn(["--version"])).stdout, `cairn ${version}\n`);
});

for (
  const [args, message] of [
    [["genrate"], 'There is no command "genrate": did you mean generate?'],
    [["xyzzy"], 'There is no command "xyzzy": cairn help lists the commands'],
    [["help", "scores"], "did you mean score?"],
    [["--model", "x", "generate"], "The command comes before --model"],
  ] as const
) {
  Deno.test(`cairn ${args.join(" ")} is a wrong call`, async () => {
    const { code, stdout, stderr } = await cairn(args);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, `cairn: `);
    assertStringIncludes(stderr, message);
  });
}
