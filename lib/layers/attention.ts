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
  /** Projection of an output gate [heads · headSize, width], for cores that take one. */
  readonly outputGate?: WeightView;
  /** Projection from which decays are made, [kvHeads, width] or [kvHeads · headSize, width], for cores that take one. */
  readonly decay?: WeightView;
  /** Projection of the strength of writes [kvHeads, width], for cores that take one. */
  readonly beta?: WeightView;
  /** Biases of the projections: ranges of f32 weights [1, numbers]. */
  readonly biases?: { readonly [name in AttentionProjection]?: WeightView };
}

/** Names of an attention layer's projections. */
export type AttentionProjection = "query" | "key" | "value" | "output" | ExtraProjection;

/** Projections that only some cores take. */
export type ExtraProjection = "outputGate" | "decay" | "beta";

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
  /** Output gates of some rows, where the layer has a projection for them. */
  readonly outputGate?: (rows: Value) => Value;
  /** What decays are made from, where the layer has a projection for it. */
  readonly decay?: (rows: Value) => Value;
  /** Strengths of writes, where the layer has a projection for them. */
  readonly beta?: (rows: Value) => Value;
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
  /** Longest sequence that the core itself can take, where it has a limit of its own. */
  readonly longest?: number;
  /** Whether it keeps less than all tokens: then every layer of the model has lengths and positions of its own. */
  readonly prunes?: boolean;
  /** Whether rows see later ones too: then there is no next token, and no cache. */
  readonly bidirectional?: boolean;
  /** Projections that it cannot do without, beside queries, keys and values. */
  readonly needs?: readonly ExtraProjection[];
  /** Settings, for printed pipelines and records. */
  readonly settings?: Readonly<Record<string, unknown>>;
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
  const { biases = {} } = weights;
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
  for (const name of core.needs ?? []) {
    if (!weights[name]) {
      throw new TypeError(
        `${core.kind} needs a projection "${name}" that this layer does not have: give its weights, or take another core`,
      );
    }
  }
  return leaf<Hidden, Hidden, AttentionConfig>("attention", config, (trace, x) => {
    trace.attentionLayers++;
    // A core may ask for the same rows twice.
    const known = new Map<string, Value>();
    const projection = (name: AttentionProjection, view: WeightView) => (rows: Value): Value => {
      const key = `${name} ${rows.id}`;
      const value = known.get(key) ?? linear(trace, rows, view, name, biases[name]);
      known.set(key, value);
      return value;
    };
    const extra: { [name in ExtraProjection]?: (rows: Value) => Value } = {};
    for (const name of ["outputGate", "decay", "beta"] as const) {
      const view = weights[name];
      if (view) extra[name] = projection(name, view);
    }
    const values = core.apply(trace, {
      rows: x.value,
      shape: config,
      query: projection("query", weights.query),
      key: projection("key", weights.key),
      value: projection("value", weights.value),
      ...extra,
    });
    return hidden(projection("output", weights.output)(values));
  });
}

/** Whether a layer is an attention layer. */
export function isAttention(
  layer: AnyLayer,
): layer is Layer<Hidden, Hidden> & { readonly config: AttentionConfig } {
  return layer.kind === "attention";
}
