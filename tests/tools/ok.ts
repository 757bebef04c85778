// Checks everything, in order of cost, and goes on after a failure so that one run tells all there is.
// The last line is `N passed, N failed[, N skipped]`: the tests, with one more failure for each other step that failed.

import { fromFileUrl } from "@std/path";
import { type Counts, testCounts, verdict } from "./counts.ts";

interface Step {
  name: string;
  /** What Deno is called with; several calls run side by side. */
  calls: string[][];
  /** The output of each call ends in the test runner's summary. */
  counts?: boolean;
}

const root = fromFileUrl(new URL("../..", import.meta.url));
const { exports } = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`)) as {
  exports: Record<string, string>;
};

/** Folders whose tests take about as long as all others together. */
const HALF = ["cli", "laws", "transforms", "wgsl"];

/** Two halves of the tests, by what stands in their folder. */
function halves(): string[][] {
  const names = [...Deno.readDirSync(`${root}/tests`)].map(({ name }) => name).sort();
  const paths = (half: boolean) =>
    names.filter((name) => HALF.includes(name) === half).map((name) => `tests/${name}`);
  // Of files only those that are tests are named; in a folder the runner finds them.
  const tests = (path: string) => !/\.[a-z]+$/i.test(path) || path.endsWith("_test.ts");
  // The types are checked by then; tests run even where that failed.
  return [false, true].map((half) => ["test", "-A", "--no-check", ...paths(half).filter(tests)]);
}

const steps: Step[] = [
  { name: "format", calls: [["fmt", "--check"]] },
  { name: "lint", calls: [["lint"]] },
  { name: "types", calls: [["check"]] },
  { name: "docs", calls: [["doc", "--lint", ...Object.values(exports)]] },
  { name: "tests", calls: halves(), counts: true },
  { name: "packaging", calls: [["publish", "--dry-run", "--allow-dirty"]] },
];

/** Runs Deno, passing its output on as it comes, or keeping it for later. */
async function deno(args: string[], told: boolean): Promise<{ code: number; output: string }> {
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
    if (!told) continue;
    for (let written = 0; written < chunk.length;) {
      written += Deno.stdout.writeSync(chunk.subarray(written));
    }
  }
  return { code: (await child.status).code, output };
}

const results: { name: string; seconds: number; counts: Counts }[] = [];
for (const { name, calls, counts } of steps) {
  for (const args of calls) console.log(`\n--- ${name}: deno ${args.join(" ")}`);
  const started = performance.now();
  // What runs beside the first call is told when both have ended.
  const runs = await Promise.all(calls.map((args, i) => deno(args, i === 0)));
  for (const { output } of runs.slice(1)) console.log(output);
  const seconds = (performance.now() - started) / 1000;
  for (const { code, output } of runs) {
    const nothing = { passed: 0, failed: code === 0 ? 0 : 1, skipped: 0 };
    results.push({ name, seconds, counts: counts ? testCounts(output, code) : nothing });
  }
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
