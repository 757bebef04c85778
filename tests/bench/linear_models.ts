// What linear attention is measured on: Llama shapes with random weights, and the cores that are put into them.

import type { Gpu } from "../../lib/gpu/mod.ts";
import type { AttentionShape } from "../../lib/layers/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import { lightningAttention, normAttention, withLinearAttention } from "../../lib/transforms/mod.ts";
import { loadRandomLlama, randomLlama as tinyLlama } from "../harness/random_llama.ts";
import { randomLlama } from "./models.ts";

/** A core of attention that is compared. */
export interface ComparedCore {
  /** Its name. */
  readonly name: string;
  /** Whether its work grows with the square of the length. */
  readonly quadratic: boolean;
  /** The same model with this core in every layer. */
  apply(model: Model): Model;
}

/** Full softmax attention, and linear attention without and with a decay. */
export const CORES: readonly ComparedCore[] = [
  { name: "softmax", quadratic: true, apply: (model) => model },
  {
    name: "norm-attention",
    quadratic: false,
    apply: (model) => withLinearAttention(normAttention())(model),
  },
  {
    name: "lightning-attention",
    quadratic: false,
    apply: (model) => withLinearAttention((layer, layers) => lightningAttention({ layer, layers }))(model),
  },
];

/** A shape that a CPU driver can run. */
export const TINY = "tiny";

/** Shapes of whole models by name. */
export const MODELS: readonly string[] = ["Llama-3.2-1B", "Llama-3-8B", TINY];

/** Weights as the device takes them best. */
function dtypeOf(gpu: Gpu): "f16" | "f32" {
  return gpu.features.f16 ? "f16" : "f32";
}

/** A model of a named shape that takes `context` positions. */
export async function shapedModel(gpu: Gpu, name: string, context: number): Promise<Model> {
  if (name !== TINY) return await randomLlama(gpu, name, context);
  const sizes = { head_dim: 16, max_position_embeddings: context };
  return await loadRandomLlama(gpu, tinyLlama(sizes), dtypeOf(gpu));
}

/** Heads of attention layers whose kernels are timed. */
export type HeadShape = Pick<AttentionShape, "heads" | "kvHeads" | "headSize">;

/** Head shapes of published models, and one for a CPU driver. */
export function headShapes(gpu: Gpu): Readonly<Record<string, HeadShape>> {
  if (gpu.adapter.isFallback) return { "4 heads of 16": { heads: 4, kvHeads: 2, headSize: 16 } };
  return {
    "1B: 32 heads of 64": { heads: 32, kvHeads: 8, headSize: 64 },
    "8B: 32 heads of 128": { heads: 32, kvHeads: 8, headSize: 128 },
  };
}

/** One layer with such heads; everything around the attention is small. */
export function oneLayer(gpu: Gpu, shape: HeadShape, context: number): Promise<Model> {
  const model = tinyLlama({
    num_hidden_layers: 1,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.headSize,
    max_position_embeddings: context,
  });
  return loadRandomLlama(gpu, model, dtypeOf(gpu));
}
