// Token embedding and the language-model head; both may share one table.

import { type Weight, type WeightView, whole } from "../graph/mod.ts";
import { embedding as embeddingOp, gatherLogitRows, linear as linearOp } from "../ops/mod.ts";
import { type Hidden, hidden, type Layer, leaf, type Logits, type TokenIds } from "./layer.ts";

/** Rows of `table` [vocabulary, width], times `scale` if given. */
export function embedding(table: Weight, scale?: number): Layer<TokenIds, Hidden> {
  return leaf<TokenIds, Hidden, { table: Weight; scale?: number }>(
    "embedding",
    scale === undefined ? { table } : { table, scale },
    (trace) => hidden(embeddingOp(trace, table, scale)),
  );
}

/**
 * Logits [rows, vocabulary] of the rows that are wanted; a tied head takes the embedding's table. Marks its input as
 * `hidden`: the last hidden states.
 */
export function lmHead(table: Weight): Layer<Hidden, Logits> {
  return leaf<Hidden, Logits, { table: Weight }>("lmHead", { table }, (trace, x) => {
    trace.marks.set("hidden", x.value);
    return {
      type: "logits",
      value: linearOp(trace, gatherLogitRows(trace, x.value), whole(table), "logits"),
    };
  });
}

/** y = x Wᵀ by row, plus `bias`, a range of numbers of an f32 weight [1, ..], if given. */
export function linear(view: WeightView, bias?: WeightView): Layer<Hidden, Hidden> {
  return leaf<Hidden, Hidden, { view: WeightView; bias?: WeightView }>(
    "linear",
    bias ? { view, bias } : { view },
    (trace, x) => hidden(linearOp(trace, x.value, view, view.weight.name, bias)),
  );
}
