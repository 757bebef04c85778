// Sampling on the GPU: from logits to the next token of every sequence, its stop test and its log-probabilities.

import { denseOperand, type OpDefinition, resource, type Trace, type Value } from "../graph/mod.ts";
import { logProbabilities } from "../../wgsl/log_probabilities.ts";
import { sample as sampleKernel } from "../../wgsl/sample.ts";

/** What sampling needs compiled in. */
export interface SampleOptions {
  /** Whether some sequence has penalties or a logit bias; tables `counts` and `bias` must then exist. */
  readonly edits: boolean;
  /** Number of top tokens whose log-probabilities are kept; undefined when none are asked for, not even the chosen's. */
  readonly logprobs?: number;
  /** Entries of a sequence in the ring of samples. */
  readonly ring: number;
}

const logProbabilitiesOp: OpDefinition<SampleOptions> = {
  kind: "logProbabilities",
  lower({ inputs: [logits], attributes: { logprobs, ring } }, emit): void {
    emit.dispatch(
      logProbabilities({ subgroups: emit.target.features.subgroups }),
      [
        denseOperand(logits),
        ...["logitRows", "rows", "states", "logSumExps", "top"].map(resource),
      ],
      (counts) => ({ rows: counts[logits.rows.name], vocab: logits.width, ring, count: logprobs! }),
    );
  },
};

const sampleOp: OpDefinition<SampleOptions> = {
  kind: "sample",
  lower({ inputs: [logits], attributes: { edits, logprobs, ring } }, emit): void {
    const tables = ["logitRows", "rows", "states", "settings", "stopIds", "forced", "samples", "logSumExps"];
    emit.dispatch(
      sampleKernel({ subgroups: emit.target.features.subgroups, edits }),
      [denseOperand(logits), ...[...tables, ...(edits ? ["counts", "bias"] : [])].map(resource)],
      (counts) => ({
        rows: counts[logits.rows.name],
        vocab: logits.width,
        ring,
        logprobs: logprobs === undefined ? 0 : 1,
      }),
    );
  },
};

/** Samples the next token of every logit row's sequence; belongs to the plan's segment `sample`. */
export function sample(trace: Trace, logits: Value, options: SampleOptions): void {
  trace.segment = "sample";
  if (options.logprobs !== undefined) trace.append(logProbabilitiesOp, [logits], [], options);
  trace.append(sampleOp, [logits], [], options);
}
