// Surroundings for the command line inside a test.

import { fromFileUrl } from "@std/path";
import type { GraphicsCard, Io } from "../../lib/cli/main.ts";

/** The root of the repository. */
export const ROOT: string = fromFileUrl(new URL("../..", import.meta.url));

/** A small real model, from the root. */
export const MODEL = "examples/models/novel-llama";

/** A chat template, from the root. */
export const CHATML = "tests/fixtures/chatml.jinja";

/** What a test sets. */
export interface FakeIoOptions {
  /** Content of stdin, or its chunks as they come. Default: nothing. */
  readonly stdin?: string | ReadableStream<Uint8Array>;
  /** Streams that are terminals. */
  readonly terminals?: readonly ("stdin" | "stdout" | "stderr")[];
  /** Where the user stands. Default: the root. */
  readonly directory?: string;
  /** The machine's card. */
  readonly card?: GraphicsCard;
  /** Called with each write to stdout, before it counts. */
  readonly onWrite?: (text: string, fake: FakeIo) => void;
}

/** Surroundings, and what was written. */
export interface FakeIo {
  /** To be passed on. */
  readonly io: Io;
  /** Texts written to stdout. */
  readonly writes: readonly string[];
  /** All of stdout. */
  readonly stdout: string;
  /** All of stderr. */
  readonly stderr: string;
  /** Presses Ctrl-C. */
  interrupt(): void;
}

/** A stream with some text in one chunk. */
export function streamOf(...chunks: readonly string[]): ReadableStream<Uint8Array> {
  return ReadableStream.from(chunks.map((chunk) => new TextEncoder().encode(chunk)));
}

/** Makes surroundings. */
export function fakeIo(options: FakeIoOptions = {}): FakeIo {
  const { stdin = "", terminals = [], directory = ROOT, card, onWrite } = options;
  const decoder = new TextDecoder();
  const writes: string[] = [];
  const handlers: (() => void)[] = [];
  let stderr = "";
  const fake: FakeIo = {
    io: {
      stdin: {
        isTerminal: terminals.includes("stdin"),
        readable: typeof stdin === "string" ? streamOf(...stdin === "" ? [] : [stdin]) : stdin,
      },
      stdout: {
        isTerminal: terminals.includes("stdout"),
        write(bytes): Promise<void> {
          const text = decoder.decode(bytes);
          onWrite?.(text, fake);
          writes.push(text);
          return Promise.resolve();
        },
      },
      stderr: { isTerminal: terminals.includes("stderr"), write: (text) => void (stderr += text) },
      directory,
      onInterrupt(handler): () => void {
        handlers.push(handler);
        return () => {
          const at = handlers.indexOf(handler);
          if (at >= 0) handlers.splice(at, 1);
        };
      },
      graphicsCard: () => Promise.resolve(card),
    },
    writes,
    get stdout() {
      return writes.join("");
    },
    get stderr() {
      return stderr;
    },
    interrupt: () => handlers.at(-1)?.(),
  };
  return fake;
}
