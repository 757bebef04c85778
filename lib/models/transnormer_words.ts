// The words of a TransNormer's config.json, as the library says them.

import type { ops } from "../layers/mod.ts";
import type { ConfigReader } from "./architecture.ts";

/** Names that configs give to feature maps. */
const FEATURE_MAPS: Readonly<Record<string, ops.FeatureMap>> = {
  elu: "elu",
  "1+elu": "1+elu",
  "2+elu": "2+elu",
  relu: "relu",
  leak: "leaky-relu",
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  sigmoid: "sigmoid",
  sine: "sine",
  exp: "exp",
  none: "identity",
  identity: "identity",
};

/** Names that configs give to activations. */
export const ACTIVATIONS: Readonly<Record<string, ops.Activation>> = {
  swish: "silu",
  silu: "silu",
  none: "identity",
  identity: "identity",
  gelu: "gelu",
  gelu_new: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  relu: "relu",
  sigmoid: "sigmoid",
};

/** Feature map of a field. */
export function readFeatureMap(config: ConfigReader, name: string, fallback?: string): ops.FeatureMap {
  return FEATURE_MAPS[config.word(name, Object.keys(FEATURE_MAPS), fallback)];
}

/** Names that configs give to norms of NormAttention. */
export const OUTPUT_NORMS: Readonly<
  Record<string, { outputNorm: "rms" | "layer" | "none"; perHead: boolean }>
> = {
  simplermsnorm_all_heads: { outputNorm: "rms", perHead: false },
  simplermsnorm_per_head: { outputNorm: "rms", perHead: true },
  layernorm_all_heads: { outputNorm: "layer", perHead: false },
  layernorm_per_head: { outputNorm: "layer", perHead: true },
  none: { outputNorm: "none", perHead: false },
};
