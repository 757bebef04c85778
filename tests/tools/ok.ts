// Checks everything, in order of cost, and goes on after a failure so that one run tells all there is.
// The last line is `N passed, N failed[, N skipped]`: the tests, with one more failure for each other step that failed.

import { fromFileUrl } from "@std/path";
import { type Counts, testCounts, verdict } from "./counts.ts";

interface Step {
  name: string;
  args: string[];
  /** The step's output ends in the test runner's summary. */
  counts?: boolean;
}

const root = fromFileUrl(new URL("../..", import.meta.url));
const { exports } = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`)) as {
  exports: Record<string, string>;
};

const steps: Step[] = [
  { name: "format", args: ["fmt", "--check"] },
  { name: "lint", args: ["lint"] },
  { name: "types", args: ["check"] },
  { name: "docs", args: ["doc", "--lint", ...Object.values(exports)] },
  // The types are checked by then; tests run even where that failed.
  { name: "tests", args: ["test", "-A", "--no-check", "tests/"], counts: true },
  { name: "packaging", args: ["publish", "--dry-run", "--allow-dirty"] },
];

/** Runs Deno, passing its output on as it comes. */
async function deno(args: string[]): Promise<{ code: number; output: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    args,
    cwd: root,
    env: { DENO_NO_UPDATE_CHECK: "1", ...(Deno.stdout.isTerminal() ? {} : { NO_COLOR: "1" }) },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const decoder = new TextDecoder();
  let output = "";
  for await (const chunk of child.stdout) {
    output += decoder.decode(chunk, { stream: true });
    for (let written = 0; written < chunk.length;) {
      written += Deno.stdout.writeSync(chunk.subarray(written));
    }
  }
  return { code: (await child.status).code, output };
}

const results: { name: string; seconds: number; counts: Counts }[] = [];
for (const { name, args, counts } of steps) {
  console.log(`\n--- ${name}: deno ${args.join(" ")}`);
  const started = performance.now();
  const { code, output } = await deno(args);
  const seconds = (performance.now() - started) / 1000;
  const nothing = { passed: 0, failed: code === 0 ? 0 : 1, skipped: 0 };
  results.push({ name, seconds, counts: counts ? testCounts(output, code) : nothing });
}

console.log();
for (const { name, seconds, counts } of results) {
  console.log(
    `${counts.failed === 0 ? "ok    " : "FAILED"} ${name.padEnd(10)} ${seconds.toFixed(1).padStart(7)} s`,
  );
}
const { line, code } = verdict(results.map(({ counts }) => counts));
console.log(line);
Deno.exit(code);
