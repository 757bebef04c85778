// What cores of linear attention share: features, the recurrence with its state, and what comes after it.

import { type AttentionShape, type CoreInput, ops, type Trace, type Value } from "../../layers/mod.ts";
import { rotationOf, type RotationOption } from "./rotation.ts";

/** How queries and keys become features. */
export interface FeatureOptions {
  /** Feature map φ. */
  readonly map: ops.FeatureMap;
  /** Rotation after φ. Default: the layer's rotary embedding. */
  readonly rotation?: RotationOption;
  /** Factor of the queries' features. Default: 1. */
  readonly scale?: number;
  /** Whether features are divided by their length. */
  readonly normalize?: "l2";
  /** Token whose rows are no keys: pads of a bidirectional model. */
  readonly padToken?: number;
}

/** Features of queries and keys, and the values, of the same rows. */
export interface Features {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
  /** Components of a feature. */
  readonly keySize: number;
}

/** Projects rows and maps queries and keys to features. */
export function features(trace: Trace, input: CoreInput, options: FeatureOptions): Features {
  const { rows, shape } = input;
  const { heads, kvHeads, headSize } = shape;
  const { map, scale, normalize, padToken } = options;
  const projected = { q: input.query(rows), k: input.key(rows), v: input.value(rows) };
  const shared = {
    headSize,
    map,
    ...rotationOf(trace, options.rotation, shape),
    ...(normalize ? { normalize } : {}),
  };
  const q = ops.featureMap(trace, projected.q, {
    ...shared,
    heads,
    ...(scale === undefined ? {} : { scale }),
  });
  const k = ops.featureMap(trace, projected.k, {
    ...shared,
    heads: kvHeads,
    ...(padToken === undefined ? {} : { zeroToken: padToken }),
  });
  return { q, k, v: projected.v, keySize: k.width / kvHeads };
}

/** Decay of {@linkcode sumOverTokens}. */
export type SumDecay = ops.LinearAttentionSpec["decay"];

/** Σ over the tokens so far of (q · k) v by head, with a state between steps; over all tokens when not causal. */
export function sumOverTokens(
  trace: Trace,
  { q, k, v, keySize }: Features,
  { heads, kvHeads, headSize }: AttentionShape,
  options: { readonly causal?: boolean; readonly decay?: SumDecay; readonly logDecay?: Value } = {},
): Value {
  const { causal = true, decay = "none", logDecay } = options;
  const spec = { heads, kvHeads, keySize, valueSize: headSize, causal, decay };
  const state = causal ? ops.recurrentState(trace, ops.linearStateWords(spec)) : undefined;
  return ops.linearAttention(trace, { q, k, v, ...(logDecay ? { logDecay } : {}) }, spec, state);
}

/** Sums over tokens by head, over the sums of their weights; guarded by an epsilon or a least denominator. */
export function divided(
  trace: Trace,
  sums: Value,
  { q, k, keySize }: Pick<Features, "q" | "k" | "keySize">,
  { heads, kvHeads }: AttentionShape,
  options: { readonly causal: boolean; readonly epsilon?: number; readonly clamp?: number },
): Value {
  const { causal, ...guard } = options;
  const spec = { heads, kvHeads, keySize, causal };
  const state = causal ? ops.recurrentState(trace, ops.denominatorStateWords(spec)) : undefined;
  const denominator = ops.linearDenominator(trace, { q, k }, spec, state);
  return ops.divideHeads(trace, sums, denominator, { heads, ...guard });
}

/** Facts of a core that keeps a state of constant size. */
export function recurrentCore(causal = true): {
  prefill: "sliced" | "whole";
  positionLimit: boolean;
  bidirectional?: boolean;
} {
  return causal
    ? { prefill: "sliced", positionLimit: false }
    : { prefill: "whole", positionLimit: true, bidirectional: true };
}
