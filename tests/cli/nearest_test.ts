import { assertEquals } from "@std/assert";
import { nearest } from "../../lib/cli/nearest.ts";

const names = ["temperature", "top-k", "top-p", "min-p", "stop", "seed"];

for (
  const [word, expected] of [
    ["temprature", "temperature"],
    ["temp", "temperature"],
    ["topk", "top-k"],
    ["top_p", "top-p"],
    ["Seed", "seed"],
    ["sede", "seed"],
    ["stops", "stop"],
    ["banana", undefined],
    ["x", undefined],
  ] as const
) {
  Deno.test(`nearest() takes ${word} for ${expected}`, () => assertEquals(nearest(word, names), expected));
}

Deno.test("nearest() finds nothing among no names", () => assertEquals(nearest("seed", []), undefined));
