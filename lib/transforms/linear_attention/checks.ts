// Checks of options that linear-attention cores share.

/**
 * @throws {RangeError} unless the value is a whole number in the range.
 */
export function wholeNumber(what: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(
      `${what} must be a whole number from ${least} to ${most}: current value is ${value}`,
    );
  }
}

/**
 * @throws {RangeError} unless the value is over 0 and at most `most`.
 */
export function positive(what: string, value: number, most = Infinity): void {
  if (!(value > 0 && value <= most && value < Infinity)) {
    const limit = most === Infinity ? "positive" : `over 0 and at most ${most}`;
    throw new RangeError(`${what} must be ${limit}: current value is ${value}`);
  }
}

/**
 * @throws {RangeError} unless the word is among those that are known.
 */
export function knownWord<T extends string>(what: string, value: T, known: readonly T[]): void {
  if (!known.includes(value)) {
    throw new RangeError(
      `${what} ${JSON.stringify(value)} is unknown: it must be one of ${known.join(", ")}`,
    );
  }
}

/**
 * Log decays a position from decays.
 *
 * @throws {RangeError} unless every decay is in (0, 1], and there is one a head.
 */
export function logDecays(decays: readonly number[], heads: number): number[] {
  if (decays.length !== heads) {
    throw new RangeError(`There must be one decay for each of ${heads} KV heads: received ${decays.length}`);
  }
  for (const decay of decays) {
    if (!(decay > 0 && decay <= 1)) {
      throw new RangeError(`A decay must be in (0, 1]: current value is ${decay}`);
    }
  }
  return decays.map(Math.log);
}
