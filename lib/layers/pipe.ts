// Composition: pipe runs layers one after the other, residual adds a layer's output to its input.

import { sliceOf, sliceRows, type Trace } from "../graph/mod.ts";
import { add, alignRows } from "../ops/mod.ts";
import { type AnyLayer, type Flow, type Hidden, hidden, type Layer, walkLayers } from "./layer.ts";

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

/** Rows of a slice. */
const SLICE_ROWS = 512;
/** Kinds of layers that compute each row by itself. */
const ROW_BY_ROW: ReadonlySet<string> = new Set([
  "pipe",
  "rmsNorm",
  "layerNorm",
  "swiGlu",
  "glu",
  "residual",
]);

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
      const { rows, width } = input.value;
      if (rows.capacity > SLICE_ROWS && [...walkLayers(inner)].every(({ kind }) => ROW_BY_ROW.has(kind))) {
        // Whole prompts may be long: what is wide inside is computed for some rows at a time.
        const sum = trace.value("residual", rows, width);
        for (const slice of sliceRows(trace, rows, SLICE_ROWS)) {
          const part = sliceOf(trace, input.value, slice);
          add(trace, part, inner.apply(trace, hidden(part)).value, sliceOf(trace, sum, slice));
        }
        return hidden(sum);
      }
      const { value } = inner.apply(trace, input);
      return hidden(add(trace, alignRows(trace, input.value, value.rows), value));
    },
    rebuild: ([other]) => residual(other),
  };
}
