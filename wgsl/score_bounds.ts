// Bounds of attention scores, as WGSL text.

/** WGSL constants: scores within `SCORE_LIMIT` have finite differences; `MASKED` is below all of them. */
export const SCORE_BOUNDS = `const MASKED = -1.6e38;
const SCORE_LIMIT = 1.5e38;`;
