// Time that a measurement may take: what no longer fits is left out and named.

/** Tells where a long run is. */
export function tell(text: string): void {
  console.error(`${(performance.now() / 1000).toFixed(1).padStart(6)} s  ${text}`);
}

/** A limit of time. */
export interface Budget {
  /** Whether something that should take `seconds` fits; what does not is noted. */
  fits(seconds: number, what: string): boolean;
  /** What did not fit. */
  readonly leftOut: readonly string[];
}

/** Largest share of the whole that one cell may take, so that the cells after it have their turn. */
const LARGEST_SHARE = 0.25;

/** Begins a budget; `now` is a clock in milliseconds. */
export function createBudget(seconds: number, now: () => number = () => performance.now()): Budget {
  const start = now();
  const leftOut: string[] = [];
  return {
    fits(needed: number, what: string): boolean {
      const left = seconds - (now() - start) / 1000;
      const fits = left > 0 && needed <= Math.min(left, seconds * LARGEST_SHARE);
      if (!fits) {
        leftOut.push(needed > 0 ? `${what} (about ${needed.toPrecision(2)} s)` : what);
        tell(`left out: ${leftOut.at(-1)}`);
      }
      return fits;
    },
    leftOut,
  };
}
