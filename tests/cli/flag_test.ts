import { assertEquals, assertThrows } from "@std/assert";
import { WrongCall } from "../../lib/cli/errors.ts";
import { bias, ids, number, oneOf, type ReadValue, size, whole } from "../../lib/cli/flag.ts";

const accepted: readonly (readonly [ReadValue<unknown>, string, unknown])[] = [
  [number, "0.5", 0.5],
  [number, "-.5", -0.5],
  [number, "1e-3", 0.001],
  [whole, "12", 12],
  [whole, "-1", -1],
  [whole, "9007199254740991", Number.MAX_SAFE_INTEGER],
  [ids, "1,2,3", [1, 2, 3]],
  [ids, "0, 7", [0, 7]],
  [bias, "5=-10", { 5: -10 }],
  [bias, "5=1.5, 7=-inf,8=-Infinity", { 5: 1.5, 7: -Infinity, 8: -Infinity }],
  [size, "512MiB", 512 * 2 ** 20],
  [size, "2GB", 2e9],
  [size, "1.5 kib", 1536],
  [size, "800", 800],
  [size, "800B", 800],
  [oneOf("f16", "f32"), "f32", "f32"],
];

for (const [read, text, value] of accepted) {
  Deno.test(`a flag reads ${text} as ${Deno.inspect(value)}`, () => {
    assertEquals(read("flag", text), value);
  });
}

const refused: readonly (readonly [ReadValue<unknown>, string, string])[] = [
  [number, "abc", "a number"],
  [number, "0x10", "a number"],
  [number, "1,5", "a number"],
  [number, "Infinity", "a number"],
  [number, "1e999", "a number"],
  [number, " ", "a number"],
  [whole, "1.5", "a whole number"],
  [whole, "1e3", "a whole number"],
  [whole, "9007199254740993", "a whole number"],
  [ids, "1,,2", "token ids"],
  [ids, "-1", "token ids"],
  [ids, "1.5", "token ids"],
  [ids, "[1]", "token ids"],
  [bias, "5", "ID=VALUE"],
  [bias, "5=", "ID=VALUE"],
  [bias, "=5", "ID=VALUE"],
  [bias, "5=1=2", "ID=VALUE"],
  [bias, "5=inf", "ID=VALUE"],
  [bias, "5=1,5=2", "two values"],
  [size, "0", "a size"],
  [size, "-5MB", "a size"],
  [size, "5 parsecs", "a size"],
  [size, "2G", "a size"],
  [size, "MB", "a size"],
  [oneOf("f16", "f32"), "f64", "f16 or f32"],
];

for (const [read, text, message] of refused) {
  Deno.test(`a flag refuses ${JSON.stringify(text)} where it wants ${message}`, () => {
    const error = assertThrows(() => read("some-flag", text), WrongCall, message);
    assertEquals(error.message.startsWith("--some-flag "), true, error.message);
  });
}
