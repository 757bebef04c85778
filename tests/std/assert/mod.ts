/**
 * A stand-in for `jsr:@std/assert`, so that the tests also run where the JSR registry cannot be reached.
 *
 * It offers what the project's tests use, under the names, signatures and rules of the real package; `links` in the
 * root `deno.json` puts it in that package's place. Delete the link and the real package is used, with no other change.
 *
 * @module
 */

export { AssertionError } from "./assertion_error.ts";
export { assertEquals, assertNotEquals } from "./equals.ts";
export { assertRejects, assertThrows } from "./throws.ts";
export {
  assertAlmostEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
} from "./numbers.ts";
export {
  assert,
  assertArrayIncludes,
  assertExists,
  assertInstanceOf,
  assertMatch,
  assertStrictEquals,
  assertStringIncludes,
  fail,
} from "./values.ts";
