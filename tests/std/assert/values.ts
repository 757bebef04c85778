import { AssertionError, show, suffix } from "./assertion_error.ts";
import { difference } from "./difference.ts";

/**
 * Asserts that a value is truthy.
 *
 * @param expr The value.
 * @param msg The error's message.
 * @throws {AssertionError} When it is not.
 */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/**
 * Fails.
 *
 * @param msg Words to add to the error.
 * @throws {AssertionError} Always.
 */
export function fail(msg?: string): never {
  throw new AssertionError(`Failed assertion${suffix(msg)}`);
}

/**
 * Asserts that two values are one and the same, by `Object.is`.
 *
 * @param actual What the code gave.
 * @param expected What it should have given.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When they are not.
 */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  if (Object.is(actual, expected)) return;
  const [left, right] = [show(actual), show(expected)];
  throw new AssertionError(
    left === right
      ? `Values have the same structure but are not reference-equal${suffix(msg)}\n${left}`
      : `Values are not strictly equal${suffix(msg)}\nActual:   ${left}\nExpected: ${right}`,
  );
}

/**
 * Asserts that a value is neither null nor undefined.
 *
 * @param actual The value.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When it is.
 */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  if (actual !== undefined && actual !== null) return;
  throw new AssertionError(`Expected actual: "${actual}" to not be null or undefined${suffix(msg)}`);
}

/**
 * Asserts that a text holds another.
 *
 * @param actual The text.
 * @param expected The part to find in it.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When it is not there.
 */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (actual.includes(expected)) return;
  throw new AssertionError(`Expected actual: "${actual}" to contain: "${expected}"${suffix(msg)}`);
}

/**
 * Asserts that a text matches a pattern.
 *
 * @param actual The text.
 * @param expected The pattern.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When it does not.
 */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (expected.test(actual)) return;
  throw new AssertionError(`Expected actual: "${actual}" to match: "${expected}"${suffix(msg)}`);
}

// deno-lint-ignore no-explicit-any
type Constructor = abstract new (...args: any[]) => any;

/**
 * Asserts that a value is an instance of a class.
 *
 * @param actual The value.
 * @param expectedType The class.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When it is not.
 */
export function assertInstanceOf<T extends Constructor>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  if (actual instanceof expectedType) return;
  const kind = Object(actual) === actual ? (actual as object).constructor?.name ?? "Object" : show(actual);
  throw new AssertionError(
    `Expected object to be an instance of "${expectedType.name}" but was "${kind}"${suffix(msg)}`,
  );
}

/**
 * Asserts that a list holds values, compared in depth, in any order.
 *
 * @param actual The list.
 * @param expected The values to find in it.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When one is missing, naming those that are.
 */
export function assertArrayIncludes<T>(
  actual: ArrayLike<T> & object,
  expected: ArrayLike<T> & object,
  msg?: string,
): void {
  const held = Array.from(actual);
  const missing = Array.from(expected).filter((wanted) =>
    !held.some((value) => difference(value, wanted) === undefined)
  );
  if (missing.length === 0) return;
  throw new AssertionError(
    `Expected actual: ${show(actual)} to include: ${show(expected)}${suffix(msg)}\nmissing: ${show(missing)}`,
  );
}
