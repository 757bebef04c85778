import { assertEquals, assertStrictEquals } from "@std/assert";
import { exitCode, inFlags, Interrupted, refused, WrongCall } from "../../lib/cli/errors.ts";
import { FLAG_NAMES } from "../../lib/cli/flags.ts";
import { GpuMemoryError } from "../../mod.ts";

Deno.test("exitCode() tells failures, wrong calls, Ctrl-C and closed pipes apart", () => {
  assertEquals(exitCode(new Error("x")), 1);
  assertEquals(exitCode("x"), 1);
  assertEquals(exitCode(new WrongCall("x")), 2);
  assertEquals(exitCode(new Interrupted("x")), 130);
  assertEquals(exitCode(new Deno.errors.BrokenPipe("x")), 0);
});

Deno.test("refused() makes wrong calls of what is out of range, but not of too little memory", () => {
  const error = refused(new RangeError("seed is odd"));
  assertEquals(error instanceof WrongCall && error.message, "seed is odd");
  assertEquals(refused(new TypeError("x")) instanceof WrongCall, true);
  const memory = new GpuMemoryError("x");
  assertStrictEquals(refused(memory), memory);
  const other = new Error("x");
  assertStrictEquals(refused(other), other);
});

for (
  const [message, expected] of [
    ["The prompt's 5 tokens and maxTokens 9 are over", "The prompt's 5 tokens and --max-tokens 9 are over"],
    ["temperature must be from 0", "--temperature must be from 0"],
    ["The temperature must be mild", "The temperature must be mild"],
    ["logitBias id 9 must be", "--logit-bias id 9 must be"],
    ["load the model with dtype f32", "load the model with --dtype f32"],
    ["Raise the ceiling (memory), shorten", "Raise the ceiling (--memory), shorten"],
    ["The model has no chat template: pass one with --chat-template FILE", undefined],
  ] as const
) {
  Deno.test(`inFlags() speaks of flags in "${message}"`, () => {
    assertEquals(inFlags(message, FLAG_NAMES), expected ?? message);
  });
}
