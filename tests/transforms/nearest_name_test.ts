import { assertEquals } from "@std/assert";
import { nearestName } from "../../mod.ts";

const NAMES = ["temperature", "top-k", "top-p", "min-p", "stop", "seed"];

for (
  const [word, expected] of [
    ["temprature", "temperature"],
    ["temp", "temperature"],
    ["TEMP", "temperature"],
    ["topk", "top-k"],
    ["top_p", "top-p"],
    ["Seed", "seed"],
    ["sede", "seed"],
    ["stops", "stop"],
    ["banana", undefined],
    ["x", undefined],
  ] as const
) {
  Deno.test(`nearestName() takes ${word} for ${expected}`, () =>
    assertEquals(nearestName(word, NAMES), expected));
}

Deno.test("nearestName() takes a name that is a letter off before one that begins so", () => {
  assertEquals(nearestName("gla", ["glare", "glb"]), "glb");
});

Deno.test("nearestName() finds nothing among no names", () =>
  assertEquals(nearestName("seed", []), undefined));
