// What a core keeps between steps: one protocol for keys and values and for recurrent states.

import type { KvLayout } from "./kv_layout.ts";
import type { LayerCacheReport } from "./layer_report.ts";

/** Tokens that a layer keeps of a sequence, for each KV head. */
export interface LayerTokens {
  /** Slots in use, with those that were evicted and are not reused yet; of the head with the most. */
  readonly used: number;
  /** Tokens, as a mean over the heads. */
  readonly live: number;
}

/** A range of a GPU buffer. */
export interface BufferRange {
  /** The buffer. */
  readonly buffer: GPUBuffer;
  /** First byte. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** What the layers of a model keep for the sequences of a run. */
export interface Cache {
  /** Bytes allocated for what is kept. */
  readonly bytes: number;
  /** Bytes allocated for the tables beside it: positions, lengths, scores. */
  readonly tableBytes: number;
  /** By layer. */
  readonly layers: readonly LayerCacheReport[];
  /** Named buffers that plans bind. */
  readonly resources: ReadonlyMap<string, GPUBuffer>;
  /**
   * What changes in place from step to step. Copying these ranges at a submit border is a checkpoint, copying them back a
   * restore: steps that were submitted after a stop are taken back by it.
   */
  readonly mutable: readonly BufferRange[];
  /** Forgets all sequences. */
  reset(): void;
  /** What each layer keeps of each sequence now, by layer and sequence; read from the device. */
  tokens(): Promise<LayerTokens[][]>;
  /** Original positions of the tokens kept of a sequence, by layer and KV head, ascending; read from the device. */
  positions(sequence: number): Promise<number[][][]>;
  /**
   * Takes over what another cache of the same layers keeps of sequence 0; both have one sequence, and this one room for
   * it.
   *
   * @throws {RangeError} when it has no room for it.
   */
  copyFrom(other: Cache): Promise<void>;
  /** Where keys and values are. */
  readonly layout: KvLayout;
  /** Frees the buffers. */
  release(): void;
}
