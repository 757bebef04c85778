// What only a process of its own shows: exit codes, the user's folder, pipes that close, signals.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { MODEL, ROOT } from "./fake_io.ts";

interface ProcessOptions {
  readonly initCwd?: string;
  readonly stdin?: string;
}

/** The command line as `deno task cairn` starts it. */
function start(args: readonly string[], options: ProcessOptions = {}): Deno.ChildProcess {
  const env = { ...Deno.env.toObject(), NO_COLOR: "1" };
  if (options.initCwd === undefined) delete (env as Record<string, string>).INIT_CWD;
  else Object.assign(env, { INIT_CWD: options.initCwd });
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--allow-read",
      "--allow-env",
      "--allow-sys",
      "lib/cli/main.ts",
      ...args,
    ],
    cwd: ROOT,
    env,
    clearEnv: true,
    stdin: options.stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function run(args: readonly string[], options: ProcessOptions = {}) {
  const child = start(args, options);
  if (options.stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(options.stdin));
    await writer.close();
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("the process ends with 0, 1 or 2 and a clean stderr, with the permissions of the task", async () => {
  const [ok, failed, wrong] = await Promise.all([
    run(["generate", "--model", MODEL, "--max-tokens", "3", "--quiet"], { stdin: "The rain" }),
    run(["generate", "--model", "nowhere", "--prompt", "a"]),
    run(["generate", "--modle", "nowhere"]),
  ]);
  assertEquals([ok.code, ok.stderr, ok.stdout.length > 0], [0, "", true]);
  assertEquals([failed.code, failed.stdout], [1, ""]);
  assertMatch(failed.stderr, /^cairn: Cannot open the model folder [^\n]*\n$/);
  assertEquals([wrong.code, wrong.stdout], [2, ""]);
  assertEquals(wrong.stderr, "cairn: There is no --modle: did you mean --model?\n");
});

Deno.test("the task in deno.json starts what these tests start", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  assertMatch(tasks.cairn.command, /^deno run (-A|--allow-read --allow-env --allow-sys) lib\/cli\/main\.ts$/);
});

Deno.test("relative paths are taken from INIT_CWD", async () => {
  const initCwd = join(ROOT, "examples");
  const { code, stdout } = await run(["plan", "--model", "models/novel-llama", "--json"], { initCwd });
  assertEquals([code, JSON.parse(stdout).layers.length], [0, 6]);
});

Deno.test("a pipe that closes ends the process quietly", async () => {
  const args = ["generate", "--model", MODEL, "--prompt", "It", "--max-tokens", "2000", "--ignore-eos"];
  const child = start(args);
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  assert(value!.length > 0);
  await reader.cancel();
  const stderr = new Response(child.stderr).text();
  const { code } = await child.status;
  assertEquals([code, await stderr], [0, ""]);
});

Deno.test("Ctrl-C ends generate with 130, and what is written stays", async () => {
  const args = ["generate", "--model", MODEL, "--prompt", "It", "--max-tokens", "2000", "--ignore-eos"];
  const child = start(args);
  const reader = child.stdout.getReader();
  let text = "";
  const decoder = new TextDecoder();
  for (let pressed = false;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += decoder.decode(value);
    // A terminal and deno task pass one Ctrl-C on twice.
    if (!pressed) { for (let i = 0; i < 2; i++) child.kill("SIGINT"); }
    pressed = true;
  }
  const stderr = await new Response(child.stderr).text();
  const { code } = await child.status;
  assertEquals(code, 130);
  assert(text.length > 0);
  assertStringIncludes(stderr, "ended by aborted");
});
