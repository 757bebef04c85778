// Scores of keys by the attention that queries still to come may pay them, were they like the prompt's own.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { expectedLogits, expectedScores } from "../../wgsl/expected_attention.ts";
import { plainQueries, queryCovariances, queryMeans, turnStatistics } from "../../wgsl/query_statistics.ts";
import { arenaName, arenasOf, type KeyValueStore } from "./kv_layout.ts";
import { type Rotary, rotaryTable } from "./rotary.ts";
import { rowTable } from "./row_tables.ts";

/** Arguments of {@linkcode expectedAttention}. */
export interface ExpectedAttentionOptions {
  /** Where keys and values stand. */
  readonly store: KeyValueStore;
  /** Name of the table of selections, and of the number of columns that need scores. */
  readonly selection: string;
  /** Rotation of the queries. */
  readonly rotary?: Rotary;
  /** Positions ahead over which their rotation is averaged. */
  readonly future: number;
  /** Positions below take no part. */
  readonly sinks: number;
  /** Added to a key's attention. */
  readonly epsilon: number;
  /** Whether values count by their length. */
  readonly valueNorms: boolean;
}

/** Resource name of the mean turn over the positions ahead. */
function aheadName(rotary: Rotary, future: number): string {
  return `rotary.${rotary.name}.ahead.${future}`;
}

/** Mean cos and mean sin over the next positions, by pair. */
function meanTurns({ frequencies }: Rotary, future: number): Float32Array {
  const steps = Array.from({ length: future }, (_, i) => i + 1);
  const mean = (of: (step: number) => number) => steps.reduce((sum, step) => sum + of(step), 0) / future;
  return Float32Array.from(
    frequencies.flatMap((frequency) => [
      mean((step) => Math.cos(step * frequency)),
      mean((step) => Math.sin(step * frequency)),
    ]),
  );
}

const expectedAttentionOp: OpDefinition<ExpectedAttentionOptions> = {
  kind: "expectedAttention",
  takesViews: true,
  lower({ inputs: [q], outputs: [scores], attributes }, emit): void {
    const { store, selection, rotary, future, sinks, epsilon, valueNorms } = attributes;
    const { target, trace } = emit;
    const { kvHeads, headSize, layer } = store;
    const { rows } = q;
    const heads = q.width / headSize;
    const { stride: qStride, offset: qOffset } = placementOf(q);
    const sequences = { ...rows, capacity: target.sequences };
    const plain = trace.value("plainQueries", rows, q.width);
    const means = trace.value("queryMeans", sequences, q.width);
    const covariances = trace.value("queryCovariances", sequences, q.width * headSize);
    const turned = {
      means: trace.value("turnedMeans", sequences, q.width),
      covariances: trace.value("turnedCovariances", sequences, q.width * headSize),
    };
    const logits = trace.value("expectedLogits", rows, heads);
    const rotation = {
      headSize,
      rotaryLayout: rotary?.layout ?? "none" as const,
      rotarySize: rotary?.size ?? 0,
    };
    const angles = rotary ? [resource(`rotary.${rotary.name}`)] : [];
    const table = rowTable(rows);
    emit.dispatch(
      plainQueries(rotation),
      [valueOperand(q), ...angles, table, valueOperand(plain)],
      (counts) => ({ rows: counts[selection] > 0 ? counts[rows.name] : 0, heads, qStride, qOffset }),
    );
    // Where nothing is chosen by scores, nothing is worked out.
    const some = (counts: Readonly<Record<string, number>>) => counts[selection] > 0 ? target.sequences : 0;
    emit.dispatch(
      queryMeans(headSize),
      [valueOperand(plain), table, resource(selection), valueOperand(means)],
      (counts) => ({ heads, sequences: some(counts), sinks }),
    );
    emit.dispatch(
      queryCovariances(headSize),
      [valueOperand(plain), table, resource(selection), valueOperand(means), valueOperand(covariances)],
      (counts) => ({ heads, sequences: some(counts), sinks }),
    );
    emit.dispatch(
      turnStatistics(rotation),
      [
        valueOperand(means),
        valueOperand(covariances),
        ...angles,
        ...(rotary ? [resource(aheadName(rotary, future))] : []),
        table,
        resource(selection),
        valueOperand(turned.means),
        valueOperand(turned.covariances),
      ],
      (counts) => ({ heads, sequences: some(counts) }),
    );
    const spec = { dtype: target.cacheType, headSize, groupSize: heads / kvHeads };
    const stride = rows.capacity;
    for (const [i, arena] of arenasOf(store, target).entries()) {
      const shared = {
        kvHeads,
        layer,
        sequences: target.sequences,
        firstHead: arena.firstHead,
        arenaHeads: arena.heads,
        stride,
      };
      emit.dispatch(
        expectedLogits(spec),
        [
          resource(arenaName(store.name, "keys", i)),
          resource(store.extents),
          resource(selection),
          valueOperand(turned.means),
          valueOperand(turned.covariances),
          valueOperand(logits),
        ],
        // The softmax is over all rows.
        (counts) => ({ ...shared, columns: counts[selection] > 0 ? counts[rows.name] : 0 }),
      );
      emit.dispatch(
        expectedScores({ ...spec, valueNorms }),
        [
          valueOperand(logits),
          ...(valueNorms ? [resource(arenaName(store.name, "values", i)), resource(store.extents)] : []),
          table,
          resource(selection),
          valueOperand(scores),
        ],
        (counts) => ({ ...shared, arenaHeads: counts[selection] > 0 ? arena.heads : 0, sinks, epsilon }),
      );
    }
  },
};

/** Scores the step's keys by the attention to expect from queries like those of the rows of `q`: [kvHeads][rows]. */
export function expectedAttention(trace: Trace, q: Value, options: ExpectedAttentionOptions): Value {
  const { store, rotary, future } = options;
  const scores = trace.value("scores", q.rows, store.kvHeads);
  if (rotary) {
    trace.constants.set(`rotary.${rotary.name}`, () => rotaryTable(rotary));
    trace.constants.set(aheadName(rotary, future), () => meanTurns(rotary, future));
  }
  trace.append(expectedAttentionOp, [q], [scores], options);
  return scores;
}
