// What a cache says of one layer.

/** What one layer keeps. */
export interface LayerCacheReport {
  /** Index among the attention layers. */
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
