// Negative log-likelihood of given next tokens.

import { denseOperand, type OpDefinition, resource, type Trace, type Value } from "../graph/mod.ts";
import { score as scoreKernel } from "../../wgsl/score.ts";

const scoreOp: OpDefinition<Record<never, never>> = {
  kind: "score",
  lower({ inputs: [logits] }, emit): void {
    emit.dispatch(
      scoreKernel({ subgroups: emit.target.features.subgroups }),
      [denseOperand(logits), resource("targets"), resource("nll")],
      (counts) => ({ rows: counts[logits.rows.name], vocab: logits.width }),
    );
  },
};

/** nll[i] = -log p(targets[i]) for every logit row; belongs to the plan's segment `score`. */
export function score(trace: Trace, logits: Value): void {
  trace.segment = "score";
  trace.append(scoreOp, [logits], [], {});
}
