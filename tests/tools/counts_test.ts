import { assertEquals } from "@std/assert";
import { testCounts, verdict } from "./counts.ts";

const runs: [string, string, number, [number, number, number]][] = [
  ["a plain summary", "a ... ok\n\nok | 66 passed | 0 failed (44ms)\n", 0, [66, 0, 0]],
  ["colours", "\x1b[0m\x1b[32mok\x1b[0m | 66 passed | 0 failed \x1b[38;5;245m(44ms)\x1b[0m\n", 0, [66, 0, 0]],
  ["ignored tests", "ok | 5 passed | 0 failed | 2 ignored (1s)\n", 0, [5, 0, 2]],
  [
    "steps, measured and filtered tests",
    "ok | 5 passed (9 steps) | 0 failed | 2 ignored (1 step) | 1 measured | 7 filtered out (1m2s)\n",
    0,
    [5, 0, 2],
  ],
  [
    "failures",
    "FAILED | 5 passed (1 step) | 3 failed (2 steps) | 1 ignored (9ms)\n\nerror: Test failed\n",
    1,
    [5, 3, 1],
  ],
  [
    "a test that prints a summary of its own",
    "ok | 9 passed | 0 failed (1ms)\nFAILED | 1 passed | 1 failed (2ms)\n",
    1,
    [1, 1, 0],
  ],
  ["carriage returns", "ok | 2 passed | 0 failed (1ms)\r\n", 0, [2, 0, 0]],
  ["an exit code that the summary does not explain", "ok | 2 passed | 0 failed (1ms)\n", 1, [2, 1, 0]],
  ["a run that broke off", "a ... ok\nb ... ", 133, [0, 1, 0]],
  ["no test at all", "ok | 0 passed | 0 failed (0ms)\n", 0, [0, 1, 0]],
  ["no output", "", 0, [0, 1, 0]],
];

for (const [name, output, code, [passed, failed, skipped]] of runs) {
  Deno.test(`testCounts() reads ${name}`, () => {
    assertEquals(testCounts(output, code), { passed, failed, skipped });
  });
}

Deno.test("testCounts() reads what this Deno prints", async () => {
  const file = await Deno.makeTempFile({ suffix: "_test.ts" });
  await Deno.writeTextFile(
    file,
    `Deno.test("a", async (t) => { await t.step("b", () => {}); });
     Deno.test("c", () => { throw new Error("c"); });
     Deno.test({ name: "d", ignore: true, fn() {} });`,
  );
  const { code, stdout } = await new Deno.Command(Deno.execPath(), { args: ["test", "--no-config", file] })
    .output();
  await Deno.remove(file);
  assertEquals(testCounts(new TextDecoder().decode(stdout), code), { passed: 1, failed: 1, skipped: 1 });
});

Deno.test("verdict() adds up and fails for one failure", () => {
  const steps = [{ passed: 3, failed: 0, skipped: 0 }, { passed: 0, failed: 0, skipped: 0 }];
  assertEquals(verdict(steps), { line: "3 passed, 0 failed", code: 0 });
  assertEquals(verdict([...steps, { passed: 1, failed: 1, skipped: 2 }]), {
    line: "4 passed, 1 failed, 2 skipped",
    code: 1,
  });
});
