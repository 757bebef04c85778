// Distances between arrays of numbers.

/** Largest |got - want|, over the largest |want|. NaN anywhere is infinitely far. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) throw new TypeError(`Lengths differ: ${got.length} and ${want.length}`);
  let worst = 0;
  let largest = 0;
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i]));
    const error = Math.abs(got[i] - want[i]);
    if (!(error <= worst)) worst = Number.isNaN(error) ? Infinity : error;
  }
  return largest === 0 ? worst : worst / largest;
}
