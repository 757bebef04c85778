import { AssertionError, show, suffix } from "./assertion_error.ts";

/**
 * Asserts that two numbers are close.
 *
 * @param actual What the code gave.
 * @param expected What it should have given.
 * @param tolerance The largest difference allowed; without it 1e-7 of the expected value.
 * @param msg Words to add to the error.
 * @throws {AssertionError} When they are further apart, or one of them alone is NaN.
 */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  if (Object.is(actual, expected)) return;
  const delta = Math.abs(expected - actual);
  const limit = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  if (delta <= limit) return;
  throw new AssertionError(
    `Expected actual: "${actual}" to be close to "${expected}": ` +
      `delta "${delta}" is greater than "${limit}"${suffix(msg)}`,
  );
}

function compare(holds: boolean, actual: unknown, sign: string, expected: unknown, msg?: string): void {
  if (!holds) throw new AssertionError(msg ?? `Expect ${show(actual)} ${sign} ${show(expected)}`);
}

/**
 * Asserts `actual > expected`.
 *
 * @param msg The error's message, instead of its own.
 * @throws {AssertionError} When it is not.
 */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  compare(actual > expected, actual, ">", expected, msg);
}

/**
 * Asserts `actual >= expected`.
 *
 * @param msg The error's message, instead of its own.
 * @throws {AssertionError} When it is not.
 */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void {
  compare(actual >= expected, actual, ">=", expected, msg);
}

/**
 * Asserts `actual < expected`.
 *
 * @param msg The error's message, instead of its own.
 * @throws {AssertionError} When it is not.
 */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  compare(actual < expected, actual, "<", expected, msg);
}

/**
 * Asserts `actual <= expected`.
 *
 * @param msg The error's message, instead of its own.
 * @throws {AssertionError} When it is not.
 */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void {
  compare(actual <= expected, actual, "<=", expected, msg);
}
