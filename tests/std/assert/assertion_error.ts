/** What every failed assertion throws. */
export class AssertionError extends Error {
  /**
   * @param message What was expected and what was there.
   * @param options As of `Error`: the `cause`, where there is one.
   */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AssertionError";
  }
}

/** How the messages end: with the caller's own words, where given. */
export function suffix(msg: string | undefined): string {
  return msg ? `: ${msg}` : ".";
}

/** A value as a message shows it. */
export function show(value: unknown): string {
  return Deno.inspect(value, { depth: 8, sorted: true, trailingComma: true, strAbbreviateSize: 10_000 });
}
