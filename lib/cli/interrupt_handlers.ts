// Who gets a Ctrl-C: the latest that asked, once; one more ends the process.

/** Handlers of Ctrl-C, the latest on top. */
export interface InterruptHandlers {
  /** Adds a handler; returns how to take it away. */
  add(handler: () => void): () => void;
  /** Passes a Ctrl-C on. */
  press(): void;
}

/** On a terminal both the terminal and `deno task` pass on one Ctrl-C. */
const SAME_PRESS_MS = 300;

/**
 * Makes an empty stack of handlers.
 *
 * @param end Ends the process: there is no handler, or the latest was called before.
 * @param now Time in ms.
 */
export function interruptHandlers(
  end: () => void,
  now: () => number = () => performance.now(),
): InterruptHandlers {
  const stack: { readonly handler: () => void; called: boolean }[] = [];
  let last = -Infinity;
  return {
    add(handler): () => void {
      const entry = { handler, called: false };
      stack.push(entry);
      return () => {
        const at = stack.indexOf(entry);
        if (at >= 0) stack.splice(at, 1);
      };
    },
    press(): void {
      const time = now();
      const same = time - last < SAME_PRESS_MS;
      last = time;
      if (same) return;
      const latest = stack.at(-1);
      if (!latest || latest.called) return end();
      latest.called = true;
      latest.handler();
    },
  };
}
