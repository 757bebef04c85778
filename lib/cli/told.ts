// What the library refuses of a flag's value, as it is told on the command line.

import { refused, WrongCall } from "./errors.ts";

/** A name of the library in kebab case: `cacheTokens` is `cache-tokens` here. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** A sentence with its options in kebab case; words in quotes, and whatever was received, stay as they are. */
function inKebab(message: string): string {
  return message.replace(
    /"[^"]*"|\breceived .*|\b[a-z]+([A-Z][a-z]*)+\b/gs,
    (words, camel: string | undefined) => camel === undefined ? words : kebab(words),
  );
}

/** Does something that a flag asks for; what is refused in it is a wrong call of that flag. */
export function told<T>(flag: string, value: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof WrongCall) throw cause;
    const error = refused(cause);
    throw error instanceof WrongCall
      ? new WrongCall(`--${flag} ${value}: ${inKebab(error.message)}`, { cause })
      : error;
  }
}
