// Feeding prompts: rows of several sequences packed one after the other and cut into steps, never padded.

import type { Recorder } from "../gpu/mod.ts";
import type { Engine } from "./engine.ts";
import type { StepRow } from "./tables.ts";

/** Tokens to feed to a sequence. */
export interface Feed {
  /** Which sequence. */
  readonly sequence: number;
  /** Its tokens. */
  readonly ids: readonly number[];
  /** Original position of the first. */
  readonly position: number;
}

/** Cuts packed rows into steps of at most `most` rows. */
export function* sliceRows(feeds: readonly Feed[], most: number): Generator<StepRow[]> {
  let slice: StepRow[] = [];
  for (const { sequence, ids, position } of feeds) {
    let index = 0;
    for (const [i, token] of ids.entries()) {
      if (slice.length === most) {
        yield slice;
        slice = [];
        index = 0;
      }
      slice.push({ token, sequence, position: position + i, index: index++ });
    }
  }
  if (slice.length) yield slice;
}

/** Feeds tokens; after the last one of each sequence its next token is sampled, if `sampled`. */
export function prefill(
  engine: Engine,
  feeds: readonly Feed[],
  sampled: boolean,
  record?: (recorder: Recorder) => void,
): void {
  const lasts = new Map(feeds.map((feed) => [feed.sequence, feed.position + feed.ids.length - 1]));
  const slices = [...sliceRows(feeds, engine.spec.sizes.prefillRows)];
  slices.forEach((rows, i) => {
    const logitRows = sampled
      ? rows.flatMap((row, at) => lasts.get(row.sequence) === row.position ? [at] : [])
      : [];
    engine.prefill(
      { rows, logitRows },
      logitRows.length ? ["body", "head", "sample"] : ["body"],
      i === slices.length - 1 ? record : undefined,
    );
  });
}
