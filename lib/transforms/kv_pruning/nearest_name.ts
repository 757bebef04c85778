// The name that a wrong one was meant to be.

/** Edits (a letter more, less or other) from one word to another. */
function edits(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      next.push(Math.min(row[j - 1] + (from[i - 1] === to[j - 1] ? 0 : 1), row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[to.length];
}

/** A name that the word begins, or else that of the fewest edits if they are at most a third of its letters. */
export function nearestName(word: string, names: readonly string[]): string | undefined {
  const asked = word.toLowerCase();
  const begun = asked.length >= 3 ? names.find((name) => name.startsWith(asked)) : undefined;
  const [best] = names.map((name) => ({ name, count: edits(asked, name) })).sort((a, b) => a.count - b.count);
  return begun ?? (best && best.count <= Math.ceil(asked.length / 3) ? best.name : undefined);
}
