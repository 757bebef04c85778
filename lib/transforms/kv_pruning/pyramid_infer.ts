// PyramidInfer (Yang et al. 2024) as a policy: deep layers keep and compute fewer tokens than shallow ones.

import { solveBudget } from "./budget.ts";
import { oneOf } from "./option_checks.ts";
import type { KvPolicy, LayerRule } from "./policy.ts";
import {
  type PyramidInferOptions,
  type ResolvedPyramidInfer,
  resolvePyramidInfer,
} from "./pyramid_infer_options.ts";
import { checkAlgorithm, pyramidInferPaper } from "./pyramid_infer_paper.ts";
import { windowAttention } from "./scorers.ts";

/**
 * PyramidInfer with the semantics of the released code: every layer scores the context by the attention of the newest
 * rows, and the rows that score least are dropped, so that later layers never compute them; generated tokens are
 * compressed once, block by block. Lengths follow from the prompt's length alone.
 *
 * With `keep` (a share of the full cache, decode included) or `cacheTokens` (slots a layer) the decays are solved for the
 * budget.
 *
 * With `algorithm: "paper"` it is the algorithm box of the paper: each pass scores the context of a layer by the newest rows
 * of the pass (a step of decode has one) and keeps the best tokens that hold a share p of their attention, p times `pDecay`
 * in the next layer, and `minimum` tokens at the least. What is not kept goes from this layer's own cache, generated tokens
 * and the prompt's alike, and in prefill its rows never reach the next layers. How much is kept follows from the attention,
 * so that memory is taken, and rows are computed, for the most it can be: everything, or what `keep` and `cacheTokens`
 * allow, the same number of slots in every layer. The box leaves open p, its decay, the minimum, and sinks, which stay here.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function pyramidInfer(options: PyramidInferOptions = {}): KvPolicy {
  oneOf("algorithm", options.algorithm ?? "code", ["code", "paper"]);
  checkAlgorithm(options);
  if (options.algorithm === "paper") return pyramidInferPaper(options);
  const resolved = resolvePyramidInfer(options);
  return {
    name: "pyramid-infer",
    options: { ...options },
    rules: (shape) => Array.from({ length: shape.layers }, (_, layer) => ruleOf(resolved, layer)),
    schedule(shape, turn) {
      const { schedule, solved } = solveBudget(resolved, shape.layers, turn);
      // A turn without caps may be followed by one with caps, in which this one's tokens may have to go.
      return { ...schedule, capped: budgeted(resolved), solved };
    },
  };
}

function budgeted({ keep, cacheTokens }: ResolvedPyramidInfer): boolean {
  return keep !== undefined || cacheTokens !== undefined;
}

function ruleOf(options: ResolvedPyramidInfer, layer: number): LayerRule {
  const { startLayer, interval, sameLayer, perKvHead, distanceWeight, sinks } = options;
  const budget = budgeted(options);
  const level = layer - startLayer;
  // Geometric ratios, which a small budget asks for, are those of every layer.
  const selects = level >= 0 && (budget || level % interval === 0);
  return {
    ...(selects || budget
      ? {
        prefill: {
          // At a cap, tokens of the prompt compete with generated ones.
          score: windowAttention(distanceWeight, perKvHead),
          dropsRows: selects,
          // A budget may ask for it.
          cutsSlots: sameLayer || perKvHead || budget,
          perKvHead,
        },
      }
      : {}),
    ...(level >= 0 || budget
      ? {
        decode: {
          type: "block",
          distanceWeight,
          sinks,
          perKvHead,
          capped: budget,
        },
      }
      : {}),
  };
}
