// What a core keeps between steps: one protocol for keys and values and, later, recurrent states.

/** What one layer keeps. */
export interface LayerCacheReport {
  /** Index among the layers that keep something. */
  readonly index: number;
  /** Kind of cache. */
  readonly kind: string;
  /** Slots allocated for each KV head, over all sequences. */
  readonly capacity: number;
  /** Bytes allocated for keys and values. */
  readonly cacheBytes: number;
  /** Bytes allocated for recurrent state. */
  readonly stateBytes: number;
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
  /** Bytes allocated. */
  readonly bytes: number;
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
  /**
   * Takes over what another cache of the same layers keeps of sequence 0, whose length is `length`; both have one
   * sequence, and this one room for it.
   *
   * @throws {RangeError} when it has no room for it.
   */
  copyFrom(other: Cache, length: number): void;
  /** Frees the buffers. */
  release(): void;
}
