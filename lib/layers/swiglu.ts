// The SwiGLU feed-forward layer (Shazeer 2020), as in Llama.

import type { WeightView } from "../graph/mod.ts";
import { glu } from "./glu.ts";
import { type Hidden, type Layer, leaf } from "./layer.ts";

/** Weights of {@linkcode swiGlu}: ranges of one fused weight for gate and up, gate first. */
export interface SwiGluWeights {
  /** Gate projection [hidden, width]. */
  readonly gate: WeightView;
  /** Up projection [hidden, width]. */
  readonly up: WeightView;
  /** Down projection [width, hidden]. */
  readonly down: WeightView;
}

/** down(silu(gate(x)) · up(x)). */
export function swiGlu(weights: SwiGluWeights): Layer<Hidden, Hidden> {
  const { apply } = glu({ ...weights, activation: "silu" });
  return leaf<Hidden, Hidden, SwiGluWeights>("swiGlu", weights, apply);
}
