import { AssertionError, suffix } from "./assertion_error.ts";

// deno-lint-ignore no-explicit-any
type ErrorConstructor<E extends Error> = abstract new (...args: any[]) => E;

/** The two call forms, `(fn, msg)` and `(fn, ErrorClass, msgIncludes, msg)`, as one. */
interface Wanted {
  ErrorClass?: ErrorConstructor<Error>;
  includes?: string;
  msg?: string;
}

function wanted(classOrMsg?: ErrorConstructor<Error> | string, includes?: string, msg?: string): Wanted {
  return typeof classOrMsg === "string" ? { msg: classOrMsg } : { ErrorClass: classOrMsg, includes, msg };
}

function check(error: unknown, { ErrorClass, includes, msg }: Wanted, verb: string): void {
  if (!ErrorClass) return;
  if (!(error instanceof Error)) {
    throw new AssertionError(`A non-Error object was ${verb}${suffix(msg)}`, { cause: error });
  }
  if (!(error instanceof ErrorClass)) {
    const kind = (error as Error).constructor.name;
    throw new AssertionError(
      `Expected error to be instance of "${ErrorClass.name}", but was "${kind}"${suffix(msg)}`,
      { cause: error },
    );
  }
  if (includes && !error.message.includes(includes)) {
    throw new AssertionError(
      `Expected error message to include ${JSON.stringify(includes)}, but got ${
        JSON.stringify(error.message)
      }${suffix(msg)}`,
      { cause: error },
    );
  }
}

/**
 * Asserts that a function throws.
 *
 * @param fn The function to call.
 * @param msg Words to add to the error.
 * @returns What was thrown.
 * @throws {AssertionError} When nothing is thrown.
 */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/**
 * Asserts that a function throws an error of a class.
 *
 * @param fn The function to call.
 * @param ErrorClass The class, or one that it is derived from.
 * @param msgIncludes A part of the error's message.
 * @param msg Words to add to the error.
 * @returns The error that was thrown.
 * @throws {AssertionError} When nothing is thrown, or something else.
 */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorConstructor<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  classOrMsg?: ErrorConstructor<Error> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  const want = wanted(classOrMsg, msgIncludes, msg);
  try {
    fn();
  } catch (error) {
    check(error, want, "thrown");
    return error;
  }
  throw new AssertionError(`Expected function to throw${suffix(want.msg)}`);
}

/**
 * Asserts that a function's promise is rejected.
 *
 * @param fn The function to call; one that throws instead of rejecting fails the assertion.
 * @param msg Words to add to the error.
 * @returns What it was rejected with.
 * @throws {AssertionError} When the promise is fulfilled, or there is none.
 */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/**
 * Asserts that a function's promise is rejected with an error of a class.
 *
 * @param fn The function to call; one that throws instead of rejecting fails the assertion.
 * @param ErrorClass The class, or one that it is derived from.
 * @param msgIncludes A part of the error's message.
 * @param msg Words to add to the error.
 * @returns The error it was rejected with.
 * @throws {AssertionError} When the promise is fulfilled, or rejected with something else.
 */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorConstructor<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  classOrMsg?: ErrorConstructor<Error> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const want = wanted(classOrMsg, msgIncludes, msg);
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    throw new AssertionError(`Function throws when expected to reject${suffix(want.msg)}`, { cause: error });
  }
  if (typeof promise?.then !== "function") {
    throw new AssertionError(`Function throws when expected to reject${suffix(want.msg)}`);
  }
  try {
    await promise;
  } catch (error) {
    check(error, want, "rejected");
    return error;
  }
  throw new AssertionError(`Expected function to reject${suffix(want.msg)}`);
}
