// Attention as a layer whose core is a value you can swap.

import type { Trace, Value, WeightView } from "../graph/mod.ts";
import { keyValueCache, linear, type Rotary, softmaxAttention, storeKeyValues } from "../ops/mod.ts";
import { type AnyLayer, type Hidden, hidden, type Layer, leaf } from "./layer.ts";

/** Weights of {@linkcode attention}: ranges of one fused weight for queries, keys and values, in this order. */
export interface AttentionWeights {
  /** Query projection [heads · headSize, width]. */
  readonly query: WeightView;
  /** Key projection [kvHeads · headSize, width]. */
  readonly key: WeightView;
  /** Value projection [kvHeads · headSize, width]. */
  readonly value: WeightView;
  /** Output projection [width, heads · headSize]. */
  readonly output: WeightView;
}

/** Shape of an attention layer. */
export interface AttentionShape {
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads; a divisor of `heads`. */
  readonly kvHeads: number;
  /** Components of a head. */
  readonly headSize: number;
  /** Rotary embedding of queries and keys; none leaves them as they are. */
  readonly rotary?: Rotary;
}

/** What a core gets: it decides which rows are projected to queries, keys and values. */
export interface CoreInput {
  /** Normed rows. */
  readonly rows: Value;
  /** Shape of the layer. */
  readonly shape: AttentionShape;
  /** Queries of some rows. */
  query(rows: Value): Value;
  /** Keys of some rows. */
  key(rows: Value): Value;
  /** Values of some rows. */
  value(rows: Value): Value;
}

/**
 * The heart of an attention layer. It takes the normed rows and the projections and returns values [rows, heads ·
 * headSize]; these may be fewer rows than it got, in which case their {@linkcode Rows} say which.
 */
export interface Core {
  /** Name, for printed pipelines. */
  readonly kind: string;
  /** How a prompt must be prefilled: in one piece, or in slices. */
  readonly prefill: "whole" | "sliced";
  /** Whether the model's position limit applies; a recurrent state has none. */
  readonly positionLimit: boolean;
  /** Whether it keeps less than all tokens: then every layer of the model has lengths and positions of its own. */
  readonly prunes?: boolean;
  /** Traces the core. */
  apply(trace: Trace, input: CoreInput): Value;
}

/** Causal softmax attention over a KV cache (Vaswani et al. 2017), scaled by 1 / sqrt(headSize). */
export function softmaxCore(): Core {
  return {
    kind: "softmax",
    prefill: "sliced",
    positionLimit: true,
    apply(trace: Trace, { rows, shape, query, key, value }: CoreInput): Value {
      const { kvHeads, headSize, rotary } = shape;
      const cache = keyValueCache(trace, { kvHeads, headSize, rows: rows.rows });
      const q = storeKeyValues(trace, { q: query(rows), k: key(rows), v: value(rows) }, cache, rotary);
      return softmaxAttention(trace, q, cache, 1 / Math.sqrt(headSize));
    },
  };
}

/** Configuration of an attention layer. */
export interface AttentionConfig extends AttentionShape {
  /** Projections. */
  readonly weights: AttentionWeights;
  /** The core. */
  readonly core: Core;
}

/**
 * Attention: projections, core, output projection.
 *
 * @throws {TypeError} when the weights do not fit the shape.
 */
export function attention(
  config: AttentionConfig,
): Layer<Hidden, Hidden> & { readonly config: AttentionConfig } {
  const { weights, core, heads, kvHeads, headSize } = config;
  if (heads % kvHeads !== 0) {
    throw new TypeError(`attention needs heads to be a multiple of kvHeads: ${heads} and ${kvHeads}`);
  }
  const expected = { query: heads, key: kvHeads, value: kvHeads };
  for (const [name, count] of Object.entries(expected) as ["query" | "key" | "value", number][]) {
    if (weights[name].rows !== count * headSize) {
      throw new TypeError(
        `attention ${name} projection has ${weights[name].rows} rows: ${count} heads of ${headSize} need ${
          count * headSize
        }`,
      );
    }
  }
  return leaf<Hidden, Hidden, AttentionConfig>("attention", config, (trace, x) => {
    const values = core.apply(trace, {
      rows: x.value,
      shape: config,
      query: (rows) => linear(trace, rows, weights.query, "query"),
      key: (rows) => linear(trace, rows, weights.key, "key"),
      value: (rows) => linear(trace, rows, weights.value, "value"),
    });
    return hidden(linear(trace, values, weights.output, "output"));
  });
}

/** Whether a layer is an attention layer. */
export function isAttention(
  layer: AnyLayer,
): layer is Layer<Hidden, Hidden> & { readonly config: AttentionConfig } {
  return layer.kind === "attention";
}
