// The name someone may have meant.

/** Edits (a letter more, less or other) from one word to another. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const other = row[j - 1] + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(other, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[to.length];
}

/**
 * The name that a wrong one was meant to be: one that is a letter off, else one that begins so, else one of which at most a
 * third of the letters differ. Names are in lower case; the word's case does not count.
 */
export function nearestName(word: string, names: readonly string[]): string | undefined {
  const asked = word.toLowerCase();
  const [best] = names.map((name) => ({ name, edits: distance(asked, name) })).sort((a, b) =>
    a.edits - b.edits
  );
  if (best && best.edits <= 1) return best.name;
  const begun = asked.length >= 3 ? names.find((name) => name.startsWith(asked)) : undefined;
  return begun ?? (best && best.edits <= Math.ceil(asked.length / 3) ? best.name : undefined);
}
