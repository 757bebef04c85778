// Host side of the GPU tables: packs what the host tells the kernels, unpacks what they tell it.

import { NONE, ROW_WORDS, SAMPLE_WORDS, SAMPLING_WORDS, STATE_WORDS, TILE_WORDS } from "../../wgsl/tables.ts";
import type { ResolvedOptions } from "./options.ts";

/** A row of a step, as the host gives it. */
export interface StepRow {
  readonly token: number;
  readonly sequence: number;
  readonly position: number;
  /** Index among the step's rows of its sequence. */
  readonly index: number;
}

/** Packs the row table. */
export function packRows(rows: readonly StepRow[]): Uint32Array<ArrayBuffer> {
  const table = new Uint32Array(rows.length * ROW_WORDS);
  rows.forEach((row, i) => table.set([row.token, row.sequence, row.position, row.index], i * ROW_WORDS));
  return table;
}

/** First row and number of rows of every sequence in a step. */
export function packSpans(rows: readonly StepRow[], sequences: number): Uint32Array<ArrayBuffer> {
  const table = new Uint32Array(sequences * 2);
  rows.forEach((row, i) => {
    if (table[row.sequence * 2 + 1]++ === 0) table[row.sequence * 2] = i;
  });
  return table;
}

/** Tiles of at most `tileRows` consecutive rows of one sequence, whose outputs stand like their rows. */
export function packTiles(rows: readonly StepRow[], tileRows: number): Uint32Array<ArrayBuffer> {
  const tiles: number[] = [];
  for (let first = 0; first < rows.length;) {
    let last = first + 1;
    while (last < rows.length && last - first < tileRows && rows[last].sequence === rows[first].sequence) {
      last++;
    }
    tiles.push(first, last - first, rows[first].sequence, first);
    first = last;
  }
  return new Uint32Array(tiles);
}

/** Tiles that rows of several sequences can take at the most. */
export function mostTiles(rows: number, sequences: number, tileRows: number): number {
  return Math.ceil(rows / tileRows) + sequences;
}

/** Number of tiles in a packed table. */
export function tileCount(tiles: Uint32Array): number {
  return tiles.length / TILE_WORDS;
}

/** State of a sequence before a run. */
export interface SequenceStart {
  readonly position: number;
  readonly remaining: number;
}

/** Packs states of sequences that have generated nothing yet. */
export function packStates(starts: readonly SequenceStart[]): Uint32Array<ArrayBuffer> {
  const table = new Uint32Array(starts.length * STATE_WORDS);
  starts.forEach(({ position, remaining }, i) => table.set([0, position, 0, 0, remaining], i * STATE_WORDS));
  return table;
}

/** What the GPU says of a sequence. */
export interface SequenceProgress {
  readonly done: boolean;
  readonly generated: number;
}

/** Unpacks states. */
export function unpackStates(words: Uint32Array, sequences: number): SequenceProgress[] {
  return Array.from({ length: sequences }, (_, i) => ({
    done: words[i * STATE_WORDS] !== 0,
    generated: words[i * STATE_WORDS + 3],
  }));
}

/** Word of `forcedFirst` in a sequence's settings; `forcedCount` follows. */
export const FORCED_FIRST_WORD = 11;

/** Packs one sequence's sampling settings; stop ids and forced tokens begin at 0 of their tables. */
export function packSampling(options: ResolvedOptions, forced = 0): ArrayBuffer {
  const buffer = new ArrayBuffer(SAMPLING_WORDS * 4);
  const floats = new Float32Array(buffer);
  const words = new Uint32Array(buffer);
  floats.set([
    options.temperature,
    options.topP,
    options.minP,
    options.repetitionPenalty,
    options.frequencyPenalty,
    options.presencePenalty,
  ]);
  words.set([
    options.topK,
    options.seed >>> 0,
    Math.floor(options.seed / 2 ** 32),
    0,
    options.stopIds.length,
    0,
    forced,
  ], 6);
  return buffer;
}

/** A sampled token, as the ring of samples has it. */
export interface Sampled {
  readonly id: number;
  /** 0: the text goes on; 1: a stop id, no part of the text; 2: the last one allowed. */
  readonly stopped: number;
  readonly logprob: number;
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** Reads samples `from` to `to` of a sequence from the ring. */
export function unpackSamples(
  samples: Uint32Array<ArrayBuffer>,
  top: Uint32Array<ArrayBuffer>,
  layout: { readonly sequence: number; readonly ring: number; readonly topCount: number },
  from: number,
  to: number,
): Sampled[] {
  const floats = new Float32Array(samples.buffer, samples.byteOffset, samples.length);
  const topFloats = new Float32Array(top.buffer, top.byteOffset, top.length);
  return Array.from({ length: to - from }, (_, i) => {
    const entry = layout.sequence * layout.ring + (from + i) % layout.ring;
    const at = entry * SAMPLE_WORDS;
    return {
      id: samples[at],
      stopped: samples[at + 1],
      logprob: floats[at + 2],
      top: Array.from({ length: layout.topCount }, (_, j) => {
        const word = (entry * layout.topCount + j) * 2;
        return { id: top[word], logprob: topFloats[word + 1] };
      }).filter(({ id }) => id !== NONE),
    };
  });
}
