// Softmax on a window and linear attention on what is older, under one normaliser (LoLCATs, Zhang et al. 2024,
// arXiv:2410.10254): the form that survives the conversion of pretrained models.

import { type Core, ops } from "../../layers/mod.ts";
import { knownWord, positive, wholeNumber } from "./checks.ts";
import { recurrentCore } from "./recurrence.ts";
import { rotationOf, type RotationOption } from "./rotation.ts";

/** Options of {@linkcode hybrid}. */
export interface HybridOptions {
  /** Newest positions that softmax sees, the row's own among them. Default: 64. */
  readonly window?: number;
  /** Feature map for what is older, with values that are not negative. Default: `hedgehog`. */
  readonly featureMap?: ops.FeatureMap;
  /** g: weight of the window in the normaliser, over 0 and at most 1. Default: 0.5. */
  readonly gate?: number;
  /** Rotation of queries and keys, before the features. Default: the layer's rotary embedding. */
  readonly rotation?: RotationOption;
}

/**
 * (g Σ_window exp(s - m) v + Σ_older φ(q) · φ(k) v) / (g Σ_window exp(s - m) + Σ_older φ(q) · φ(k)), with s = q · k /
 * sqrt(headSize) and m the window's largest s. It keeps the window's keys and values and a state.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function hybrid(options: HybridOptions = {}): Core {
  const { window = 64, featureMap = "hedgehog", gate = 0.5, rotation } = options;
  wholeNumber("window", window, 1, 1024);
  knownWord("featureMap", featureMap, ops.FEATURE_MAPS);
  positive("gate", gate, 1);
  return {
    kind: "hybrid",
    ...recurrentCore(),
    settings: { window, featureMap, gate },
    apply(trace, input) {
      const { rows, shape } = input;
      const { heads, kvHeads, headSize } = shape;
      const rotated = { headSize, map: "identity" as const, ...rotationOf(trace, rotation, shape) };
      const projected = { q: input.query(rows), k: input.key(rows), v: input.value(rows) };
      const q = ops.featureMap(trace, projected.q, { ...rotated, heads });
      const k = ops.featureMap(trace, projected.k, { ...rotated, heads: kvHeads });
      const qFeatures = ops.featureMap(trace, q, { headSize, map: featureMap, heads });
      const kFeatures = ops.featureMap(trace, k, { headSize, map: featureMap, heads: kvHeads });
      const featureSize = kFeatures.width / kvHeads;
      const spec = { heads, kvHeads, headSize, featureSize, window, scale: 1 / Math.sqrt(headSize), gate };
      const state = ops.recurrentState(trace, ops.hybridStateWords(spec));
      return ops.hybridAttention(trace, { q, k, v: projected.v, qFeatures, kFeatures }, spec, state);
    },
  };
}
