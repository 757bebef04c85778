// Tables of constants that a trace takes along, named by their content, so that layers with the same numbers share one.

import type { Trace } from "../graph/mod.ts";

/** Numbers as a short name (FNV-1a over their text, twice 32 bits). */
function contentName(prefix: string, numbers: readonly number[]): string {
  let [a, b] = [0x811c9dc5, 0x9747b28c];
  for (const letter of numbers.join()) {
    const code = letter.charCodeAt(0);
    a = Math.imul(a ^ code, 0x01000193);
    b = Math.imul(b ^ code, 0x85ebca6b);
  }
  return `${prefix}.${numbers.length}.${[a, b].map((word) => (word >>> 0).toString(36)).join("")}`;
}

/**
 * Adds a table made from numbers, and returns its resource name. `prefix` says what is made of them; `make` is the same for
 * all of one prefix. Default: the numbers themselves.
 */
export function constantTable(
  trace: Trace,
  prefix: string,
  numbers: readonly number[],
  make: (numbers: readonly number[]) => Float32Array = (own) => Float32Array.from(own),
): string {
  const name = contentName(prefix, numbers);
  trace.constants.set(name, () => make(numbers));
  return name;
}
