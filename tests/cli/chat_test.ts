import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../lib/cli/main.ts";
import { CHATML, fakeIo, MODEL } from "./fake_io.ts";
import { cairn } from "./run_cairn.ts";

const CALL = ["chat", "--model", MODEL, "--chat-template", CHATML, "--temperature", "0", "--max-tokens", "6"];

/** Tokens read and written, and in use after each turn. */
function turns(stderr: string): number[][] {
  return [...stderr.matchAll(/\[(\d+) tokens read, (\d+) written, .*; (\d+) of 2048 in use\]/g)]
    .map(([, ...numbers]) => numbers.map(Number));
}

Deno.test("chat answers each line of a pipe and reads only what is new", async () => {
  const { code, stdout, stderr } = await cairn(CALL, { stdin: "Hello there.\n\nWho are you?\n" });
  assertEquals(code, 0);
  const [[read, written, used], [readNext, writtenNext, usedNext], ...rest] = turns(stderr);
  assertEquals(rest, []);
  assertEquals(used, read + written);
  assertEquals(usedNext, used + readNext + writtenNext);
  assertEquals(stdout.endsWith("\n"), true);
  assertEquals(stderr.includes("> "), false);
});

Deno.test("chat takes /reset, /help and /exit for commands, and says which it does not know", async () => {
  const stdin = "Hello\n/reset\nHello\n/help\n/rest\n/exit\nnot answered\n";
  const { code, stdout, stderr } = await cairn(CALL, { stdin });
  assertEquals(code, 0);
  const [first, second, ...rest] = turns(stderr);
  assertEquals([first, rest], [second, []]);
  assertEquals(stdout.slice(0, stdout.length / 2), stdout.slice(stdout.length / 2));
  for (const command of ["/reset ", "/help ", "/exit "]) assertStringIncludes(stderr, command);
  assertStringIncludes(stderr, "There is no /rest: did you mean /reset?");
});

Deno.test("chat --quiet writes answers and nothing else", async () => {
  const { stdout, stderr } = await cairn([...CALL, "--quiet"], { stdin: "Hello" });
  assertEquals(stderr, "");
  assert(stdout.length > 1);
});

Deno.test("chat --system begins with the system message", async () => {
  const plain = await cairn(CALL, { stdin: "Hello" });
  const system = await cairn([...CALL, "--system", "Be kind."], { stdin: "Hello" });
  assert(turns(system.stderr)[0][0] > turns(plain.stderr)[0][0] + 3);
});

Deno.test("chat asks with > on a terminal and ends at its end", async () => {
  const { code, stderr } = await cairn(CALL, { stdin: "Hello\n", terminals: ["stdin", "stderr"] });
  assertEquals(code, 0);
  assertEquals(stderr.split("> ").length - 1, 2);
  assertStringIncludes(stderr, "/help lists the commands");
});

Deno.test("chat stops only the answer when Ctrl-C comes during it", async () => {
  const { code, stdout, stderr } = await cairn([...CALL.slice(0, -1), "900", "--ignore-eos"], {
    stdin: "Hello\nMore\n",
    // In both answers, so that the test ends soon.
    onWrite: (_, fake) => fake.writes.length % 3 === 2 && fake.interrupt(),
  });
  assertEquals(code, 0);
  const answered = turns(stderr);
  assertEquals(answered.length, 2);
  for (const [, written] of answered) assert(written > 0 && written < 900, stderr);
  assertEquals(stderr.split("ended by aborted").length - 1, 2);
  assert(stdout.length > 0);
});

Deno.test("chat ends with 130 when Ctrl-C comes at the prompt", async () => {
  let interrupt = () => {};
  const waiting = new ReadableStream<Uint8Array>({ pull: () => void setTimeout(interrupt, 0) }, {
    highWaterMark: 0,
  });
  const fake = fakeIo({ stdin: waiting, terminals: ["stdin", "stderr"] });
  interrupt = fake.interrupt;
  assertEquals([await main(CALL, fake.io), fake.stdout], [130, ""]);
});

Deno.test("chat without a template says what to do, before anything is loaded", async () => {
  const { code, stdout, stderr } = await cairn(["chat", "--model", MODEL], {
    stdin: "Hello\n",
    terminals: ["stderr"],
  });
  assertEquals([code, stdout], [2, ""]);
  assertMatch(
    stderr,
    /^cairn: The model in .* has no chat template: give one with --chat-template FILE, or .*\n$/,
  );
});

Deno.test("chat goes on at a terminal after a message that is too long, and fails in a pipe", async () => {
  const stdin = `${"word ".repeat(3000)}\nHello\n`;
  const typed = await cairn(CALL, { stdin, terminals: ["stdin"] });
  assertEquals(typed.code, 0);
  assertMatch(typed.stderr, /context 2048: .*; \/reset begins anew/);
  assertEquals(turns(typed.stderr).length, 1);
  const piped = await cairn(CALL, { stdin });
  assertEquals([piped.code, piped.stdout], [1, ""]);
  assertMatch(piped.stderr, /cairn: The prompt .*context/);
});

Deno.test("chat refuses an option out of range, also at a terminal", async () => {
  const { code, stderr } = await cairn([...CALL, "--top-p", "2"], { stdin: "Hello\n", terminals: ["stdin"] });
  assertEquals(code, 2);
  assertStringIncludes(stderr, "--top-p must be from 0 to 1");
});

Deno.test("chat ends quietly when nobody reads on", async () => {
  const { code, stderr } = await cairn([...CALL, "--quiet"], {
    stdin: "Hello\nMore\n",
    onWrite: () => {
      throw new Deno.errors.BrokenPipe("nobody reads");
    },
  });
  assertEquals([code, stderr], [0, ""]);
});
