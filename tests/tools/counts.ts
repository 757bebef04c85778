/**
 * Reads what a test run counted, and says it in one line.
 *
 * @module
 */

import { stripVTControlCharacters } from "node:util";

/** How many tests passed, failed and were not run. */
export interface Counts {
  /** Ran, and did as they should. */
  passed: number;
  /** Ran, and did not; or could not run. */
  failed: number;
  /** Ignored by name, for want of a device or of files. */
  skipped: number;
}

/** The line that closes a run, such as `ok | 12 passed (3 steps) | 0 failed | 1 ignored (5ms)`. */
const summary = /^(?:ok|FAILED) \| (?<passed>\d+) passed\b.*$/;

/**
 * The counts of a run of `deno test`.
 *
 * @param output What it wrote, with or without colours.
 * @param code Its exit code. Where that tells of a failure that the summary does not count, or no test ran at all,
 *   one failure is added: a run that broke off, or that found nothing to run, did not pass.
 */
export function testCounts(output: string, code: number): Counts {
  const line = stripVTControlCharacters(output).split(/\r?\n/).findLast((each) => summary.test(each)) ?? "";
  const count = (word: string): number => Number(new RegExp(`\\| (\\d+) ${word}\\b`).exec(line)?.[1] ?? 0);
  const counts = { passed: count("passed"), failed: count("failed"), skipped: count("ignored") };
  if (counts.failed === 0 && (code !== 0 || counts.passed === 0)) counts.failed = 1;
  return counts;
}

/**
 * The closing line and exit code of several steps.
 *
 * @returns `N passed, N failed`, with `, N skipped` where there are any, and 1 if something failed, else 0.
 */
export function verdict(steps: readonly Counts[]): { line: string; code: number } {
  const sum = (key: keyof Counts) => steps.reduce((total, counts) => total + counts[key], 0);
  const skipped = sum("skipped");
  return {
    line: `${sum("passed")} passed, ${sum("failed")} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`,
    code: sum("failed") > 0 ? 1 : 0,
  };
}
