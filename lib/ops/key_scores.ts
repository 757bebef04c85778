// Scores of keys by the keys alone, or by chance.

import { type OpDefinition, resource, type Trace, type Value, valueOperand } from "../graph/mod.ts";
import { keyScores as keyScoresKernel, type KeyScoresSpec } from "../../wgsl/key_scores.ts";
import { meanKeys } from "../../wgsl/mean_keys.ts";
import { randomScores as randomScoresKernel } from "../../wgsl/random_scores.ts";
import { arenaName, arenasOf, type KeyValueStore } from "./kv_layout.ts";
import { rowTable } from "./row_tables.ts";

/** Arguments of {@linkcode keyScores}. */
export interface KeyScoresOptions {
  /** Where the keys stand. */
  readonly store: KeyValueStore;
  /** Name of the table of selections, and of the number of columns that need scores. */
  readonly selection: string;
  /** Negative length, or negative cosine to the mean direction. */
  readonly score: KeyScoresSpec["score"];
}

const keyScoresOp: OpDefinition<KeyScoresOptions> = {
  kind: "keyScores",
  lower({ outputs: [scores, means], attributes: { store, selection, score } }, emit): void {
    const { target } = emit;
    const { kvHeads, headSize, layer } = store;
    const sizes = { dtype: target.cacheType, headSize };
    for (const [i, arena] of arenasOf(store, target).entries()) {
      const shared = {
        kvHeads,
        layer,
        sequences: target.sequences,
        firstHead: arena.firstHead,
        arenaHeads: arena.heads,
      };
      const keys = [resource(arenaName(store.name, "keys", i)), resource(store.extents), resource(selection)];
      if (means) emit.dispatch(meanKeys(sizes), [...keys, valueOperand(means)], () => shared);
      emit.dispatch(
        keyScoresKernel({ ...sizes, score }),
        [...keys, ...(means ? [valueOperand(means)] : []), valueOperand(scores)],
        (counts) => ({ ...shared, columns: counts[selection], stride: scores.rows.capacity }),
      );
    }
  },
};

/** Scores the step's keys by themselves, for the rows that `like` has: [kvHeads][rows]. */
export function keyScores(trace: Trace, like: Value, options: KeyScoresOptions): Value {
  const { store, score } = options;
  const scores = trace.value("scores", like.rows, store.kvHeads);
  const outputs = [scores];
  if (score === "difference") {
    const sequences = { ...like.rows, capacity: trace.target.sequences };
    outputs.push(trace.value("meanKeys", sequences, store.kvHeads * store.headSize));
  }
  trace.append(keyScoresOp, [], outputs, options);
  return scores;
}

/** Arguments of {@linkcode randomScores}. */
export interface RandomScoresOptions {
  /** KV heads. */
  readonly kvHeads: number;
  /** Name of the table of selections, and of the number of columns that need scores. */
  readonly selection: string;
  /** Layer, for a hash of its own. */
  readonly layer: number;
  /** Seed, u32. */
  readonly seed: number;
}

const randomScoresOp: OpDefinition<RandomScoresOptions> = {
  kind: "randomScores",
  lower({ outputs: [scores], attributes: { kvHeads, selection, layer, seed } }, emit): void {
    emit.dispatch(
      randomScoresKernel(),
      [rowTable(scores.rows), resource(selection), valueOperand(scores)],
      (counts) => ({
        columns: counts[selection],
        kvHeads,
        sequences: emit.target.sequences,
        stride: scores.rows.capacity,
        layer,
        seed,
      }),
    );
  },
};

/** Gives the rows that `like` has scores by a hash of their positions: [kvHeads][rows]. */
export function randomScores(trace: Trace, like: Value, options: RandomScoresOptions): Value {
  const scores = trace.value("scores", like.rows, options.kvHeads);
  trace.append(randomScoresOp, [], [scores], options);
  return scores;
}
