import { AssertionError, show, suffix } from "./assertion_error.ts";
import { difference } from "./difference.ts";

/**
 * Asserts that two values are equal in depth.
 *
 * @param actual What the code gave.
 * @param expected What it should have given.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When they differ, naming the first place where they do.
 */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  const place = difference(actual, expected);
  if (place === undefined) return;
  const where = place === "" ? "" : `\nFirst difference at: ${place}`;
  throw new AssertionError(
    `Values are not equal${suffix(msg)}${where}\nActual:   ${show(actual)}\nExpected: ${show(expected)}`,
  );
}

/**
 * Asserts that two values differ somewhere.
 *
 * @param actual What the code gave.
 * @param expected What it should not have given.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When they are equal in depth.
 */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (difference(actual, expected) !== undefined) return;
  throw new AssertionError(
    `Expected actual: ${show(actual)} not to be: ${show(expected)}${suffix(msg)}`,
  );
}
