// JSON as headers and indices need it: an object in which no name stands twice. JSON.parse takes the last of two equal
// names, so that a damaged or malicious file could mean one thing to one program and another to the next.

/**
 * Parses a JSON object.
 *
 * @param text The JSON text.
 * @param what What the text is, for messages: a sentence's subject.
 * @throws {SyntaxError} when the text is not JSON, not an object, or an object in it has a name twice.
 */
export function parseJsonObject(text: string, what: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    // The cause's message quotes the text, which may be anything; it is not for a terminal.
    throw new SyntaxError(`${what} is not valid JSON: download it again`, { cause });
  }
  if (!isObject(value)) {
    throw new SyntaxError(`${what} is not a JSON object but ${shown(value)}: download it again`);
  }
  const name = repeatedName(text);
  if (name !== undefined) {
    throw new SyntaxError(
      `${what} has ${shown(name)} twice: the program that wrote it is at fault, convert it again`,
    );
  }
  return value;
}

/** Whether a value of JSON is an object, not a list or null. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value of JSON as messages show it: on one line, cut where it is long. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
}

/** The first name that stands twice in the same object of valid JSON. */
function repeatedName(text: string): string | undefined {
  const names: (Set<string> | undefined)[] = []; // of every open object, undefined for a list
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "{") names.push(new Set());
    else if (character === "[") names.push(undefined);
    else if (character === "}" || character === "]") names.pop();
    else if (character === '"') {
      const end = endOfString(text, i);
      const open = names.at(-1);
      if (open && isName(text, end)) {
        const name: string = JSON.parse(text.slice(i, end));
        if (open.has(name)) return name;
        open.add(name);
      }
      i = end - 1;
    }
  }
  return undefined;
}

/** Whether the string that ends at `end` is a name: only after names does a colon follow. */
function isName(text: string, end: number): boolean {
  let next = end;
  while (text[next] === " " || text[next] === "\n" || text[next] === "\r" || text[next] === "\t") next++;
  return text[next] === ":";
}

/** The index after the closing quote of the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  let end = start + 1;
  while (text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
  return end + 1;
}
