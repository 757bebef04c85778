// Keys and values of one layer at a time before it is known which of them are kept: staged behind those that the cache
// has, attended to there, and then copied to the cache as far as they are chosen.

import {
  type OpDefinition,
  resource,
  type Rows,
  stagingSlots,
  type Step,
  type StepLimits,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { appendSelected } from "../../wgsl/append_selected.ts";
import { compactSlots } from "../../wgsl/compact_slots.ts";
import { compactTables } from "../../wgsl/compact_tables.ts";
import { stagePositions } from "../../wgsl/stage_positions.ts";
import { stageSlots } from "../../wgsl/stage_slots.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import { appendRows } from "./key_value_cache.ts";
import { type Arena, arenaName, arenasOf, type KeyValueStore } from "./kv_layout.ts";

/** How many slots and rows of each sequence a layer stages in a step. */
export type StagedLengths = (step: Step) => readonly { readonly past: number; readonly rows: number }[];

const stageOp: OpDefinition<{ readonly cache: KeyValueStore; readonly stage: KeyValueStore }> = {
  kind: "stage",
  lower({ attributes: { cache, stage } }, emit): void {
    const { target } = emit;
    const shared = { layer: cache.layer, sequences: target.sequences, kvHeads: cache.kvHeads };
    emit.dispatch(
      stagePositions(),
      [
        resource(cache.positions),
        resource(stage.positions),
        resource(cache.extents),
        resource(stage.extents),
      ],
      (counts) => ({ ...shared, columns: counts[stage.extents] }),
    );
    const kernel = stageSlots({ dtype: target.cacheType, headSize: cache.headSize });
    overlaps(arenasOf(cache, target), arenasOf(stage, target)).forEach(([from, to, heads]) =>
      emit.dispatch(
        kernel,
        [
          resource(arenaName(cache.name, "keys", from)),
          resource(arenaName(cache.name, "values", from)),
          resource(arenaName(stage.name, "keys", to)),
          resource(arenaName(stage.name, "values", to)),
          resource(cache.extents),
          resource(stage.extents),
        ],
        (counts) => ({
          ...shared,
          columns: counts[stage.extents],
          firstHead: heads.firstHead,
          arenaHeads: heads.heads,
        }),
      )
    );
  },
};

/** Heads that an arena of one store and one of another have in common. */
function overlaps(from: readonly Arena[], to: readonly Arena[]): [number, number, Arena][] {
  return from.flatMap((a, i) =>
    to.flatMap((b, j): [number, number, Arena][] => {
      const firstHead = Math.max(a.firstHead, b.firstHead);
      const heads = Math.min(a.firstHead + a.heads, b.firstHead + b.heads) - firstHead;
      return heads > 0 ? [[i, j, { firstHead, heads }]] : [];
    })
  );
}

/** Stages what a layer's cache has, and makes room behind it for the step's rows. */
export function stage(
  trace: Trace,
  cache: KeyValueStore,
  rows: Rows,
  lengths: StagedLengths,
): KeyValueStore {
  const { kvHeads, headSize, layer } = cache;
  const name = `staging.${headSize}`;
  const staged: KeyValueStore = {
    kvHeads,
    headSize,
    name,
    layer: 0,
    extents: `staging.${layer}.extents`,
    positions: `${name}.positions`,
  };
  trace.staging.set(name, { kvHeads, headSize });
  const arenas = arenasOf(staged, trace.target);
  trace.stepTables.set(staged.extents, {
    words: ({ sequences }) => sequences * kvHeads * EXTENT_WORDS,
    make: (step, limits) => stagingExtents(lengths(step), kvHeads, arenas, limits),
  });
  trace.stepCounts.set(staged.extents, (step) => Math.max(...lengths(step).map(({ past }) => past)));
  trace.append(stageOp, [], [], { cache, stage: staged });
  appendRows(trace, staged, rows);
  return staged;
}

function stagingExtents(
  lengths: ReturnType<StagedLengths>,
  kvHeads: number,
  arenas: readonly Arena[],
  limits: StepLimits,
): Uint32Array<ArrayBuffer> {
  const slots = stagingSlots(limits);
  const table = new Uint32Array(lengths.length * kvHeads * EXTENT_WORDS);
  for (const { firstHead, heads } of arenas) {
    let first = 0;
    lengths.forEach(({ past, rows }, sequence) => {
      for (let i = 0; i < heads; i++) {
        const head = firstHead + i;
        const positions = head * slots + first;
        table.set(
          [i * slots + first, past + rows, 0, 0, positions],
          (sequence * kvHeads + head) * EXTENT_WORDS,
        );
      }
      first += past + rows;
    });
  }
  return table;
}

interface Commit {
  readonly stage: KeyValueStore;
  readonly cache: KeyValueStore;
  readonly selection: string;
  readonly perKvHead: boolean;
  readonly scored: boolean;
}

const commitOp: OpDefinition<Commit> = {
  kind: "commit",
  lower({ inputs: [map, scores, keeps], attributes }, emit): void {
    const { stage, cache, selection, perKvHead, scored } = attributes;
    const { target } = emit;
    const { kvHeads, headSize, layer } = cache;
    const counted = keeps !== undefined;
    // Where heads keep as many each by its own, slots are dealt out among them.
    const ragged = counted && perKvHead;
    if (ragged && arenasOf(cache, target).length > 1) {
      throw new RangeError(
        `Heads of different lengths need all of a layer's keys in one binding, and these take more than the ` +
          `${target.bindingBytes} bytes of this device: use a shorter context, fewer sequences at once or f16`,
      );
    }
    emit.dispatch(
      appendSelected({ counted, ragged }),
      [
        resource(cache.extents),
        resource(selection),
        resource("states"),
        ...(counted ? [valueOperand(keeps)] : []),
      ],
      () => ({ layer, sequences: target.sequences, kvHeads, ...(counted ? { keepHeads: keeps.width } : {}) }),
    );
    const numbers = {
      layer,
      sequences: target.sequences,
      kvHeads,
      // Heads that keep the same rows share one map.
      stride: perKvHead ? map.rows.capacity : 0,
    };
    const kernel = compactSlots({ dtype: target.cacheType, headSize });
    overlaps(arenasOf(stage, target), arenasOf(cache, target)).forEach(([from, to, heads]) =>
      emit.dispatch(
        kernel,
        [
          valueOperand(map),
          resource(selection),
          resource(stage.extents),
          resource(cache.extents),
          resource(arenaName(stage.name, "keys", from)),
          resource(arenaName(stage.name, "values", from)),
          resource(arenaName(cache.name, "keys", to)),
          resource(arenaName(cache.name, "values", to)),
        ],
        (counts) => ({
          ...numbers,
          columns: counts[map.rows.name],
          firstHead: heads.firstHead,
          arenaHeads: heads.heads,
        }),
      )
    );
    emit.dispatch(
      compactTables({ scores: scored }),
      [
        valueOperand(map),
        resource(selection),
        resource(stage.extents),
        resource(cache.extents),
        resource(stage.positions),
        resource(cache.positions),
        ...(scored ? [valueOperand(scores), resource("slotScores")] : []),
      ],
      (counts) => ({ ...numbers, columns: counts[map.rows.name] }),
    );
  },
};

/** Copies the chosen slots of what was staged to the cache, with their positions and, if asked for, their scores. */
export function commit(
  trace: Trace,
  options: Commit & { readonly map: Value; readonly scores: Value; readonly keeps?: Value },
): void {
  const { map, scores, keeps, ...attributes } = options;
  trace.append(commitOp, keeps ? [map, scores, keeps] : [map, scores], [], attributes);
}
