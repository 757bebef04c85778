// A character to mark places in a text with, which the text itself cannot contain.

/**
 * A private-use character (U+E000 to U+F8FF) that occurs in none of the texts.
 *
 * Looking, and not trusting that nobody types it: a mark that a user can type is a mark a user can forge.
 *
 * @param texts Everything that must not contain the character.
 * @throws {RangeError} When the texts contain every private-use character.
 */
export function unusedCharacter(texts: Iterable<string>): string {
  const used = new Set<string>();
  for (const text of texts) {
    for (const [character] of text.matchAll(/[\uE000-\uF8FF]/g)) used.add(character);
  }
  for (let code = 0xe000; code <= 0xf8ff; code++) {
    const character = String.fromCharCode(code);
    if (!used.has(character)) return character;
  }
  throw new RangeError("The text contains every character from U+E000 to U+F8FF: leave at least one out");
}
