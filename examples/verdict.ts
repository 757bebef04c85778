// How a paper's claims fare, in the same words everywhere.

/** Whether a claim holds of what was measured. */
export function verdict(holds: boolean): string {
  return holds ? "comes out here" : "does not come out here";
}
