// Ctrl-C as an abort signal.

import { Interrupted } from "./errors.ts";
import type { Io } from "./io.ts";

/** Runs work that Ctrl-C stops; one more Ctrl-C ends the process. */
export async function interruptible<T>(io: Io, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = io.onInterrupt(() => controller.abort(new Interrupted("Stopped by Ctrl-C")));
  try {
    return await work(controller.signal);
  } finally {
    stop();
  }
}

/** Waits for a promise that knows no signal. */
export async function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let listener!: () => void;
  const aborted = new Promise<never>((_, reject) => listener = () => reject(signal.reason));
  signal.addEventListener("abort", listener);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", listener);
  }
}
