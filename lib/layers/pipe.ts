// Composition: pipe runs layers one after the other, residual adds a layer's output to its input.

import type { Trace } from "../graph/mod.ts";
import { add, alignRows } from "../ops/mod.ts";
import { type AnyLayer, type Flow, type Hidden, hidden, type Layer } from "./layer.ts";

function sequence<In extends Flow, Out extends Flow>(layers: readonly AnyLayer[]): Layer<In, Out> {
  return {
    kind: "pipe",
    config: {},
    layers,
    apply: (trace: Trace, input: In): Out =>
      layers.reduce((value: Flow, layer) => layer.apply(trace, value), input) as Out,
    rebuild: (inner) => sequence(inner),
  };
}

/** One layer is a pipeline by itself. */
export function pipe<A extends Flow, B extends Flow>(a: Layer<A, B>): Layer<A, B>;
/** First `a`, then `b`. */
export function pipe<A extends Flow, B extends Flow, C extends Flow>(
  a: Layer<A, B>,
  b: Layer<B, C>,
): Layer<A, C>;
/** First `a`, then any number of blocks from hidden states to hidden states, then `z`. */
export function pipe<A extends Flow, Z extends Flow>(
  a: Layer<A, Hidden>,
  ...rest: [...Layer<Hidden, Hidden>[], Layer<Hidden, Z>]
): Layer<A, Z>;
/** Runs layers one after the other. */
export function pipe(...layers: AnyLayer[]): AnyLayer {
  return layers.length === 1 ? layers[0] : sequence(layers);
}

/**
 * x + inner(x). When a core inside left fewer rows, the input is gathered by the same map: rows of the output are those of
 * the inner layer.
 */
export function residual(inner: Layer<Hidden, Hidden>): Layer<Hidden, Hidden> {
  return {
    kind: "residual",
    config: {},
    layers: [inner],
    apply(trace: Trace, input: Hidden): Hidden {
      const { value } = inner.apply(trace, input);
      return hidden(add(trace, alignRows(trace, input.value, value.rows), value));
    },
    rebuild: ([other]) => residual(other),
  };
}
