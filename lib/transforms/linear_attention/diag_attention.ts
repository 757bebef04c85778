// DiagAttention of TransNormer (Qin et al. 2022, arXiv:2210.10340, section 4.2): attention inside of blocks.

import { type Core, ops } from "../../layers/mod.ts";
import { knownWord, positive, wholeNumber } from "./checks.ts";
import { checkOutputNorm, type OutputNorm, outputNorm } from "./output_norm.ts";
import { recurrentCore } from "./recurrence.ts";
import { rotationOf, type RotationOption } from "./rotation.ts";

/** Options of {@linkcode diagAttention}. */
export interface DiagAttentionOptions {
  /** Positions of a block, from 1 to 1024. Default: 64. */
  readonly block?: number;
  /** Softmax of the scores (T2), or their positive part as it is (T1). Default: `softmax`. */
  readonly score?: "softmax" | "relu";
  /** Factor of the scores. Default: 1 / sqrt(headSize). */
  readonly scale?: number;
  /** Norm of what comes out. Default: none with softmax, SimpleRMSNorm over all heads with ReLU. */
  readonly outputNorm?: OutputNorm;
  /** Whether a row sees only itself and earlier ones of its block. Default: yes. */
  readonly causal?: boolean;
  /** Rotation of queries and keys; positions begin anew in every block. Default: the layer's rotary embedding. */
  readonly rotation?: RotationOption;
  /** Token whose rows are no keys, in a bidirectional model. */
  readonly padToken?: number;
}

/**
 * Attention to the tokens of the own block of positions, blocks side by side without overlap. It keeps the keys and values
 * of at most one block.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export function diagAttention(options: DiagAttentionOptions = {}): Core {
  const { block = 64, score = "softmax", scale, causal = true, rotation, padToken } = options;
  const norm = options.outputNorm ?? { norm: score === "relu" ? "rms" : "none" };
  wholeNumber("block", block, 1, 1024);
  knownWord("score", score, ["softmax", "relu"]);
  if (scale !== undefined) positive("scale", scale);
  checkOutputNorm(norm);
  return {
    kind: "diag-attention",
    ...recurrentCore(causal),
    settings: { block, score, causal },
    apply(trace, input) {
      const { rows, shape } = input;
      const { heads, kvHeads, headSize } = shape;
      const rotated = { headSize, map: "identity" as const, ...rotationOf(trace, rotation, shape, block) };
      const projected = { q: input.query(rows), k: input.key(rows), v: input.value(rows) };
      const q = ops.featureMap(trace, projected.q, { ...rotated, heads });
      const k = ops.featureMap(trace, projected.k, { ...rotated, heads: kvHeads });
      const spec = {
        heads,
        kvHeads,
        headSize,
        block,
        score,
        scale: scale ?? 1 / Math.sqrt(headSize),
        causal,
        ...(padToken === undefined ? {} : { padToken }),
      };
      const state = causal ? ops.recurrentState(trace, ops.diagStateWords(spec)) : undefined;
      return outputNorm(trace, ops.diagAttention(trace, { q, k, v: projected.v }, spec, state), heads, norm);
    },
  };
}
