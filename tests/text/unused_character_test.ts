import { assertEquals, assertThrows } from "@std/assert";
import { unusedCharacter } from "../../lib/text/unused_character.ts";

Deno.test("unusedCharacter() gives a private-use character that no text contains", () => {
  assertEquals(unusedCharacter([]), "\ue000");
  assertEquals(unusedCharacter(["a\ue000\ue001", "\ue002", "\ue004"]), "\ue003");
});

Deno.test("unusedCharacter() throws when every one is used", () => {
  const all = Array.from({ length: 0x1900 }, (_, i) => String.fromCharCode(0xe000 + i)).join("");
  assertThrows(() => unusedCharacter(["x", all]), RangeError, "U+E000 to U+F8FF");
  assertEquals(unusedCharacter([all.slice(0, -1)]), "\uf8ff");
});
