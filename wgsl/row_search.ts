// Finding rows of a step by their positions, as WGSL text.

/**
 * WGSL function `rowsBefore(span, position)`: how many rows of a sequence, of the `span` (first row, count), stand before a
 * position. Rows stand in the order of their positions, mostly without gaps, so the place that an unbroken run would
 * give is tried first. Needs the binding `rowTable` of Row; `span.y` is at least 1.
 */
export const ROW_SEARCH = `fn rowsBefore(span: vec2<u32>, position: u32) -> u32 {
  let start = rowTable[span.x].position;
  if (position <= start) { return 0u; }
  let guess = position - start;
  if (guess < span.y && rowTable[span.x + guess].position == position) { return guess; }
  // Positions differ, so no more rows than positions stand before it.
  var low = 1u;
  var high = min(guess, span.y);
  while (low < high) {
    let middle = (low + high) / 2u;
    if (rowTable[span.x + middle].position < position) { low = middle + 1u; } else { high = middle; }
  }
  return low;
}`;
