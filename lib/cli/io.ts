// What the command line stands in: streams, the user's folder, Ctrl-C. Tests bring their own.

import { EXIT } from "./errors.ts";
import { findGraphicsCard, type GraphicsCard } from "./graphics_card.ts";
import { interruptHandlers } from "./interrupt_handlers.ts";

/** Where bytes come from. */
export interface Input {
  /** Whether a person types there. */
  readonly isTerminal: boolean;
  /** The bytes; asked for at most once. */
  readonly readable: ReadableStream<Uint8Array>;
}

/** Where results go. */
export interface Output {
  /** Whether a person looks at it. */
  readonly isTerminal: boolean;
  /**
   * Writes all bytes, unbuffered.
   *
   * @throws {Deno.errors.BrokenPipe} when nobody reads on.
   */
  write(bytes: Uint8Array): Promise<void>;
}

/** Where everything else goes: progress, statistics, warnings, errors. */
export interface Notes {
  /** Whether a person looks at it. */
  readonly isTerminal: boolean;
  /** Writes a text; that nobody reads it is no error. */
  write(text: string): void;
}

/** The surroundings of a command. */
export interface Io {
  /** Standard input. */
  readonly stdin: Input;
  /** Standard output: text or one JSON object. */
  readonly stdout: Output;
  /** Standard error. */
  readonly stderr: Notes;
  /** Folder that relative paths are taken from. */
  readonly directory: string;
  /** Calls the latest handler at the next Ctrl-C, once; one more ends the process. Returns how to stop that. */
  onInterrupt(handler: () => void): () => void;
  /** The machine's graphics card, whether or not WebGPU can use it. */
  graphicsCard(): Promise<GraphicsCard | undefined>;
}

/** The surroundings of this process. Relative paths start where the user stood when `deno task` was called. */
export function processIo(): Io {
  const encoder = new TextEncoder();
  const handlers = interruptHandlers(() => Deno.exit(EXIT.interrupted));
  let listening = false;
  return {
    stdin: {
      get isTerminal() {
        return Deno.stdin.isTerminal();
      },
      get readable() {
        return Deno.stdin.readable;
      },
    },
    stdout: {
      get isTerminal() {
        return Deno.stdout.isTerminal();
      },
      async write(bytes: Uint8Array): Promise<void> {
        for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
      },
    },
    stderr: {
      get isTerminal() {
        return Deno.stderr.isTerminal();
      },
      write(text: string): void {
        const bytes = encoder.encode(text);
        try {
          for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
        } catch (error) {
          if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
        }
      },
    },
    directory: Deno.env.get("INIT_CWD") || Deno.cwd(),
    onInterrupt(handler): () => void {
      if (!listening) Deno.addSignalListener("SIGINT", handlers.press);
      listening = true;
      return handlers.add(handler);
    },
    graphicsCard: () => findGraphicsCard(),
  };
}
