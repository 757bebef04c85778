// Branches side by side.

import type { Trace } from "../graph/mod.ts";
import { add } from "../ops/mod.ts";
import { type AnyLayer, type Hidden, hidden, type Layer } from "./layer.ts";

/** The sum of what several layers make of the same input; all must leave the same rows. */
export function parallel(
  ...branches: [Layer<Hidden, Hidden>, ...Layer<Hidden, Hidden>[]]
): Layer<Hidden, Hidden> {
  return {
    kind: "parallel",
    config: {},
    layers: branches,
    apply(trace: Trace, input: Hidden): Hidden {
      const [first, ...others] = branches.map((branch) => branch.apply(trace, input).value);
      return hidden(others.reduce((sum, value) => add(trace, sum, value), first));
    },
    rebuild: (inner: readonly AnyLayer[]) =>
      parallel(...inner as [Layer<Hidden, Hidden>, ...Layer<Hidden, Hidden>[]]),
  };
}
