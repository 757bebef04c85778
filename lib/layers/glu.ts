// Gated feed-forward layers (Dauphin et al. 2017, Shazeer 2020): down(activation(gate(x)) · up(x)).

import type { WeightView } from "../graph/mod.ts";
import { type Activation, glu as gluOp, linear } from "../ops/mod.ts";
import { type Hidden, hidden, type Layer, leaf } from "./layer.ts";

/** Weights of {@linkcode glu}: ranges of one fused weight for gate and up, gate first, and of one fused bias likewise. */
export interface GluConfig {
  /** Gate projection [hidden, width]. */
  readonly gate: WeightView;
  /** Up projection [hidden, width]. */
  readonly up: WeightView;
  /** Down projection [width, hidden]. */
  readonly down: WeightView;
  /** Their biases, ranges of f32 weights [1, ..]. Default: none. */
  readonly biases?: { readonly gate: WeightView; readonly up: WeightView; readonly down: WeightView };
  /** What is done with the gate; `identity` makes it bilinear. */
  readonly activation: Activation;
}

/** down(activation(gate(x)) · up(x)). */
export function glu(config: GluConfig): Layer<Hidden, Hidden> {
  return leaf<Hidden, Hidden, GluConfig>("glu", config, (trace, x) => {
    const { biases, activation } = config;
    const gate = linear(trace, x.value, config.gate, "gate", biases?.gate);
    const up = linear(trace, x.value, config.up, "up", biases?.up);
    return hidden(linear(trace, gluOp(trace, gate, up, activation), config.down, "down", biases?.down));
  });
}
