// Checks of policies' options: each gives the value back, or says what may stand there.

/** One of some words. */
export function oneOf<T extends string>(name: string, value: T, allowed: readonly T[]): T {
  if (allowed.includes(value)) return value;
  throw new RangeError(`${name} must be one of ${allowed.join(", ")}: received ${JSON.stringify(value)}`);
}

/** A number in a range. */
export function number(name: string, value: number, low: number, high: number): number {
  if (typeof value === "number" && value >= low && value <= high) return value;
  throw new RangeError(`${name} must be a number from ${low} to ${high}: received ${String(value)}`);
}

/** A whole number in a range. */
export function whole(name: string, value: number, low: number, high = Infinity): number {
  if (Number.isSafeInteger(value) && value >= low && value <= high) return value;
  const range = high === Infinity ? `from ${low}` : `from ${low} to ${high}`;
  throw new RangeError(`${name} must be a whole number ${range}: received ${String(value)}`);
}

/** A whole number that has a middle. */
export function odd(name: string, value: number, high: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= high && value % 2 === 1) return value;
  throw new RangeError(`${name} must be an odd number from 1 to ${high}: received ${String(value)}`);
}

/** True or false. */
export function flag(name: string, value: boolean): boolean {
  if (typeof value === "boolean") return value;
  throw new RangeError(`${name} must be true or false: received ${String(value)}`);
}

/** A share of everything that is not nothing. */
export function share(value: number): number {
  if (typeof value === "number" && value > 0 && value <= 1) return value;
  throw new RangeError(
    `keep must be above 0 and at most 1, which keeps everything: received ${String(value)}`,
  );
}

/** How much may be kept, of which only one is given. */
export function budget(
  { keep, cacheTokens }: { readonly keep?: number | undefined; readonly cacheTokens?: number | undefined },
): { readonly keep?: number; readonly cacheTokens?: number } {
  if (keep !== undefined && cacheTokens !== undefined) {
    throw new RangeError(`keep and cacheTokens exclude each other: received ${keep} and ${cacheTokens}`);
  }
  if (keep !== undefined) return { keep: share(keep) };
  return cacheTokens === undefined ? {} : { cacheTokens: whole("cacheTokens", cacheTokens, 1) };
}
