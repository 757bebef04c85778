// Linear attention with a decay of one number a head.

import type { Trace, Value } from "../graph/mod.ts";
import { checkLinearSizes, linearStateSize } from "../../wgsl/linear_decay.ts";
import { linearAttentionOp, type LinearAttentionSpec } from "./linear_attention_op.ts";
import { constantTable } from "./constant_table.ts";
import { checkGroups, checkHeads, checkRows, checkState } from "./linear_shapes.ts";
import type { RecurrentState } from "./recurrent_state.ts";

export type { LinearAttentionSpec } from "./linear_attention_op.ts";

/** Values that {@linkcode linearAttention} takes. */
export interface LinearAttentionInputs {
  /** Queries [rows, heads · keySize]. */
  readonly q: Value;
  /** Keys [rows, kvHeads · keySize]. */
  readonly k: Value;
  /** Values [rows, kvHeads · valueSize]. */
  readonly v: Value;
  /** Logarithms of the decay to each row from the one before it [rows, kvHeads], not above 0, for the decay `token`. */
  readonly logDecay?: Value;
}

/** Numbers that {@linkcode linearAttention} keeps of a sequence, a multiple of 4. */
export function linearStateWords(
  { kvHeads, keySize, valueSize }: Pick<LinearAttentionSpec, "kvHeads" | "keySize" | "valueSize">,
): number {
  return linearStateSize(kvHeads, keySize, valueSize);
}

/**
 * o_t = S_tᵀ q_t with S_t = decay · S_(t-1) + k_t v_tᵀ by head, without scale and denominator: [rows, heads · valueSize]. The
 * state goes from step to step in `state`, made for {@linkcode linearStateWords}.
 *
 * @throws {TypeError} when widths, rows, state or decay do not fit.
 * @throws {RangeError} when a size or a decay is out of its range.
 */
export function linearAttention(
  trace: Trace,
  inputs: LinearAttentionInputs,
  spec: LinearAttentionSpec,
  state?: RecurrentState,
): Value {
  const { q, k, v, logDecay } = inputs;
  const { heads, kvHeads, keySize, valueSize, causal, decay } = spec;
  const op = "linearAttention";
  checkLinearSizes({ keySize, valueSize });
  checkGroups(op, heads, kvHeads);
  checkHeads(op, "queries", q, heads, keySize);
  checkHeads(op, "keys", k, kvHeads, keySize);
  checkHeads(op, "values", v, kvHeads, valueSize);
  if ((decay === "token") !== (logDecay !== undefined)) {
    throw new TypeError(`${op} takes logDecay with the decay "token", and only with it`);
  }
  if (logDecay) checkHeads(op, "logDecay", logDecay, kvHeads, 1);
  checkRows(op, logDecay ? [q, k, v, logDecay] : [q, k, v]);
  checkState(op, trace, causal, linearStateWords(spec), state);
  if (!causal && decay !== "none") {
    throw new TypeError(`${op} has no decay where rows see later ones too: use the decay "none", or causal`);
  }
  const slopes = typeof decay === "object" ? slopesOf(trace, decay.perHead, kvHeads) : undefined;
  const y = trace.value("linearAttention", q.rows, heads * valueSize);
  trace.append(linearAttentionOp, logDecay ? [q, k, v, logDecay] : [q, k, v], [y], {
    spec,
    ...(causal && state ? { state } : {}),
    ...(slopes ? { slopes } : {}),
  });
  return y;
}

/** Makes the table of slopes, named by its content: layers with the same slopes share it. */
function slopesOf(trace: Trace, perHead: readonly number[], kvHeads: number): string {
  if (perHead.length !== kvHeads) {
    throw new TypeError(
      `linearAttention needs a decay for each of ${kvHeads} KV heads: there are ${perHead.length}`,
    );
  }
  const wrong = perHead.find((slope) => !(slope <= 0 && slope > -Infinity));
  if (wrong !== undefined) {
    throw new RangeError(`Decays are logarithms a position, finite and not above 0: one of them is ${wrong}`);
  }
  return constantTable(trace, "slopes", perHead);
}
