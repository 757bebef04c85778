// Ends a stream of text before the first stop string.

/** What a matcher lets through. */
export interface StopPiece {
  /** Text that no stop string can begin in any more. */
  text: string;
  /** Whether a stop string was met: the text ends before it, and nothing follows. */
  stopped: boolean;
}

/** A text that comes in pieces and ends before a stop string. */
export interface StopMatcher {
  /** Takes the next piece. What could be the beginning of a stop string is held back until it is decided. */
  push(text: string): StopPiece;
  /** Takes the end of the text: gives what was held back, up to a stop string if one stands in it. */
  flush(): StopPiece;
}

/**
 * A matcher for stop strings that may lie across pieces.
 *
 * The text ends where, of all stop strings in it, the first one begins; how it was cut into pieces makes no difference.
 * So while a longer stop string that begins earlier can still come true, one met inside it is not yet the end.
 *
 * @param stops The stop strings; without any, all text passes.
 * @throws {TypeError} When one is not a string.
 * @throws {RangeError} When one is empty.
 */
export function createStopMatcher(stops: readonly string[]): StopMatcher {
  for (const [i, stop] of stops.entries()) {
    if (typeof stop !== "string") {
      throw new TypeError(`Stop string ${i + 1} must be a text: received ${stop}`);
    }
    if (stop === "") {
      throw new RangeError(`Stop string ${i + 1} is empty and would end every text: leave it out`);
    }
  }
  let held = "";
  let stopped = false;

  function advance(text: string, final: boolean): StopPiece {
    if (stopped) return { text: "", stopped };
    held += text;
    const match = firstMatch(held, stops);
    const possible = final ? held.length : firstBeginning(held, stops);
    const end = Math.min(match, possible);
    const piece = held.slice(0, end);
    // Where both begin at one place, the longer one cannot change where the text ends.
    stopped = match <= possible && match < held.length;
    held = stopped ? "" : held.slice(end);
    return { text: piece, stopped };
  }

  return { push: (text) => advance(text, false), flush: () => advance("", true) };
}

/** Where the first stop string begins; the text's length without one. */
function firstMatch(text: string, stops: readonly string[]): number {
  return Math.min(text.length, ...stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0));
}

/** Where the first stop string could begin that goes on beyond the text; the text's length if none can. */
function firstBeginning(text: string, stops: readonly string[]): number {
  let first = text.length;
  for (const stop of stops) {
    for (let at = Math.max(0, text.length - stop.length + 1); at < first; at++) {
      if (stop.startsWith(text.slice(at))) first = at;
    }
  }
  return first;
}
