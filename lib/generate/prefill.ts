// Feeding prompts: rows of several sequences packed one after the other and cut into steps, never padded.

import type { Recorder } from "../gpu/mod.ts";
import type { Turn } from "../graph/mod.ts";
import type { Engine } from "./engine.ts";
import { prefillsWhole } from "./plans.ts";
import { TILE_ROWS } from "../../wgsl/attention_prefill.ts";
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

/** How rows are cut into steps. */
export interface SliceOptions {
  /** Whether a sequence's rows must stay in one step, so that cuts are between sequences only. */
  readonly whole?: boolean;
  /** Rows of a sequence between which alone it is cut, so that kernels find the same groups of them in any company. */
  readonly group?: number;
}

/** Cuts packed rows into steps of at most `most` rows. */
export function* sliceRows(
  feeds: readonly Feed[],
  most: number,
  { whole = false, group = 1 }: SliceOptions = {},
): Generator<StepRow[]> {
  let slice: StepRow[] = [];
  for (const { sequence, ids, position } of feeds) {
    if (whole && slice.length > 0 && slice.length + ids.length > most) {
      yield slice;
      slice = [];
    }
    let index = 0;
    for (const [i, token] of ids.entries()) {
      const next = i % group === 0 ? Math.min(group, ids.length - i) : 1;
      if (slice.length === most || (slice.length + next > most && next > 1)) {
        yield slice;
        slice = [];
        index = 0;
      }
      slice.push({ token, sequence, position: position + i, index: index++ });
    }
  }
  if (slice.length) yield slice;
}

/** Slices that are under way before the host looks whether to go on. */
const SLICES_UNDER_WAY = 4;

/** How {@linkcode prefill} ends. */
export interface PrefillHooks {
  /** Appends to the last submit. */
  readonly record: (recorder: Recorder) => void;
  /** Whether to end now. */
  readonly aborted: () => boolean;
}

/**
 * Feeds tokens; after the last one of each sequence its next token is sampled. A long prompt is fed some slices at a time,
 * so that it can be aborted: false then, with part of it fed or none.
 */
export async function prefill(
  engine: Engine,
  feeds: readonly Feed[],
  turns: readonly Turn[],
  hooks: PrefillHooks,
): Promise<boolean> {
  const lasts = new Map(feeds.map((feed) => [feed.sequence, feed.position + feed.ids.length - 1]));
  const { model, sizes } = engine.spec;
  const slices = [
    ...sliceRows(feeds, sizes.prefillRows, {
      whole: prefillsWhole(model),
      // Chunks of linear attention begin where a sequence's rows of a step do.
      ...(sizes.batchInvariant ? { group: TILE_ROWS } : {}),
    }),
  ];
  for (const [i, rows] of slices.entries()) {
    if (i % SLICES_UNDER_WAY === 0) {
      if (i > 0) await engine.idle();
      if (hooks.aborted()) return false;
    }
    const logitRows = rows.flatMap((row, at) => lasts.get(row.sequence) === row.position ? [at] : []);
    engine.prefill(
      { rows, logitRows, turns },
      logitRows.length ? ["body", "head", "sample"] : ["body"],
      i === slices.length - 1 ? hooks.record : undefined,
    );
  }
  return true;
}
