// A run: pieces as they come and a record at the end. It goes on whether or not someone watches.

import type { KernelTime } from "../gpu/mod.ts";
import type { LinearizedLayers } from "../layers/mod.ts";
import type { FinishReason, Piece, TokenLogprobs } from "./output.ts";

/** What is known of a text when it has ended. Field names are those of `cairn generate --json`. */
export interface GenerateRecord {
  /** The new text. */
  readonly text: string;
  /** The new tokens, without the stop token; those of a stop string are among them. */
  readonly ids: readonly number[];
  /** The prompt's tokens. */
  readonly promptIds: readonly number[];
  /** Why it ended. */
  readonly finishReason: FinishReason;
  /** Seed that was used. */
  readonly seed: number;
  /** Token counts. */
  readonly usage: { readonly promptTokens: number; readonly completionTokens: number };
  /** Times; of the whole run when several prompts ran together. */
  readonly timing: {
    readonly loadMs: number;
    readonly timeToFirstTokenMs: number;
    readonly prefillTokensPerSecond: number;
    readonly decodeTokensPerSecond: number;
  };
  /**
   * Bytes on the GPU: of the weights, this run's cache and activations (without the buffers for reading back), and the most
   * that was held on the device at once.
   */
  readonly bytes: {
    readonly weights: number;
    readonly cache: number;
    readonly activations: number;
    readonly peak: number;
  };
  /**
   * Tokens that each layer's cache keeps in the end, 0 where it keeps a state. The last sampled token is not among them; what
   * a run-ahead fed past a stop string is.
   */
  readonly cacheTokens: readonly number[];
  /** Positions of the tokens that were kept after the prompt, by layer and KV head, when asked for. */
  readonly kept?: readonly (readonly (readonly number[])[])[];
  /** How the cache was pruned, if it was: the policy, its options and what was settled for a budget. */
  readonly pruning?: {
    readonly policy: string;
    readonly options: Readonly<Record<string, unknown>>;
    readonly settled?: Readonly<Record<string, unknown>>;
  };
  /** Linear attention that was put in place of softmax attention: core, settings, layers and what that means. */
  readonly linearized?: readonly LinearizedLayers[];
  /** What is worth knowing of the text: an untrained swap of attention, a length over what the model was made for. */
  readonly warnings?: readonly string[];
  /** Waits for the GPU, those for lengths and positions of a pruned cache left out. */
  readonly readbacks: number;
  /** Time of each kernel over the run, longest first, when asked for (of the first 16384 calls). */
  readonly kernels?: readonly KernelTime[];
  /** Log-probabilities, when asked for. */
  readonly logprobs?: readonly TokenLogprobs[];
}

/** Pieces of text as they become known, and the record when all have ended. Ending the iteration early aborts the run. */
export interface GenerateRun<Record> extends AsyncIterable<Piece> {
  /** Settles when the run has ended, watched or not. */
  readonly record: Promise<Record>;
}

/** What a run's work gets. */
export interface RunControl {
  /** Hands out a piece. */
  push(piece: Piece): void;
  /** Whether someone iterates over the pieces. */
  watched(): boolean;
  /** Whether the iteration was ended early. */
  abandoned(): boolean;
}

/** Starts work and hands out its pieces. */
export function startRun<Record>(work: (control: RunControl) => Promise<Record>): GenerateRun<Record> {
  const queue: Piece[] = [];
  let watched = false;
  let abandoned = false;
  let ended = false;
  const waiting: (() => void)[] = [];
  const notify = () => {
    for (const wake of waiting.splice(0)) wake();
  };
  // The work begins in a later turn of the event loop, so that an iteration that begins at once is seen.
  const record = new Promise<void>((resolve) => setTimeout(resolve, 0)).then(() =>
    work({
      push(piece): void {
        if (abandoned) return;
        queue.push(piece);
        notify();
      },
      watched: () => watched,
      abandoned: () => abandoned,
    })
  ).finally(() => {
    ended = true;
    notify();
  });
  // Who only iterates gets the error there.
  record.catch(() => {});
  return {
    record,
    [Symbol.asyncIterator](): AsyncIterator<Piece> {
      watched = true;
      return {
        async next(): Promise<IteratorResult<Piece>> {
          while (queue.length === 0 && !ended) await new Promise<void>((wake) => waiting.push(wake));
          const value = queue.shift();
          if (value) return { value, done: false };
          await record;
          return { value: undefined, done: true };
        },
        async return(): Promise<IteratorResult<Piece>> {
          abandoned = true;
          queue.length = 0;
          await record.catch(() => {});
          return { value: undefined, done: true };
        },
      };
    },
  };
}
