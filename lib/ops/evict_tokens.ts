// Decode with a cache that forgets: scores of slots by the attention they get, blocks that are compressed, and the
// eviction of single tokens. Evicted slots are used again.

import {
  type OpDefinition,
  type Operation,
  resource,
  type Rewrite,
  type Rows,
  type Trace,
  valueOperand,
} from "../graph/mod.ts";
import { compressBlock as compressBlockKernel } from "../../wgsl/compress_block.ts";
import { evictSlot as evictSlotKernel, type EvictSlotSpec } from "../../wgsl/evict_slot.ts";
import { slotScores as slotScoresKernel, type SlotScoresSpec } from "../../wgsl/slot_scores.ts";
import type { KeyValueStore } from "./kv_layout.ts";
import { layerParameters, type LayerRange, type OfLayer, oneLayer } from "./layer_range.ts";
import { type EvictNucleus, evictNucleusOp } from "./nucleus.ts";
import { reservedSlots } from "./reserved_slots.ts";
import { rowTable } from "./row_tables.ts";
import type { RecordedAttention } from "./softmax_attention.ts";

interface ScoreSlots {
  readonly store: KeyValueStore;
  readonly mode: SlotScoresSpec["mode"];
  readonly heads: SlotScoresSpec["heads"];
}

const scoreSlotsOp: OpDefinition<ScoreSlots> = {
  kind: "scoreSlots",
  lower({ inputs: [logits, logSumExps], attributes: { store, mode, heads } }, emit): void {
    const { target } = emit;
    const { rows } = logits;
    const block = mode === "block";
    emit.dispatch(
      slotScoresKernel({ mode, heads, groupSize: logSumExps.width / store.kvHeads }),
      [
        valueOperand(logits),
        valueOperand(logSumExps),
        rowTable(rows),
        resource(store.extents),
        resource(store.positions),
        resource("states"),
        ...(block ? [resource("turns"), resource("slotSums")] : []),
        resource("slotScores"),
      ],
      (counts) => ({
        rows: counts[rows.name],
        heads: logSumExps.width,
        kvHeads: store.kvHeads,
        layer: store.layer,
        sequences: target.sequences,
        logitStride: target.longest,
        slots: Math.min(counts.longest, target.longest),
      }),
    );
  },
};

/** Moves the scores of a layer's slots on by what the step's attention gave them. */
export function scoreSlots(trace: Trace, attention: RecordedAttention, options: ScoreSlots): void {
  trace.append(scoreSlotsOp, [attention.logits, attention.logSumExps], [], options);
}

interface CompressBlock {
  readonly layers: LayerRange;
  readonly rows: Rows;
  readonly heads: "each" | "mean";
  readonly distanceWeight: number;
}

const compressBlockOp: OpDefinition<CompressBlock> = {
  kind: "compressBlock",
  lower({ attributes: { layers, rows, heads, distanceWeight } }, emit): void {
    emit.dispatch(
      compressBlockKernel({ heads }),
      [
        rowTable(rows),
        resource("extents"),
        resource("slotPositions"),
        resource("freedSlots"),
        resource("slotSums"),
        resource("slotScores"),
        resource("states"),
        resource("turns"),
        resource("windows"),
      ],
      (counts) => ({
        rows: counts[rows.name],
        ...layerParameters(layers),
        sequences: emit.target.sequences,
        distanceWeight,
      }),
    );
  },
};

/** Compresses the block of generated tokens that stands before the window, where the table of windows says so. */
export function compressBlock(trace: Trace, options: OfLayer<CompressBlock>): void {
  const { store, ...settings } = options;
  trace.append(compressBlockOp, [], [], { ...settings, layers: oneLayer(store) });
}

interface EvictSlot extends EvictSlotSpec {
  readonly layers: LayerRange;
  readonly rows: Rows;
  readonly sinks: number;
  readonly window: number;
}

const evictSlotOp: OpDefinition<EvictSlot> = {
  kind: "evictSlot",
  lower({ attributes: { layers, rows, heads, limit, score, sinks, window } }, emit): void {
    emit.dispatch(
      evictSlotKernel({ heads, limit, score }),
      [
        rowTable(rows),
        resource("extents"),
        resource("slotPositions"),
        resource("freedSlots"),
        ...(score === "stored" ? [resource("slotScores")] : []),
        resource("states"),
        ...(limit === "frozen" ? [resource("turns"), resource("windows")] : []),
      ],
      (counts) => ({
        rows: counts[rows.name],
        ...layerParameters(layers),
        sequences: emit.target.sequences,
        sinks,
        window,
        delay: reservedSlots(emit.target.reuseDelay),
      }),
    );
  },
};

/** At its capacity a layer evicts the token of the lowest score, so that the next one finds a slot. */
export function evictSlot(trace: Trace, options: OfLayer<EvictSlot>): void {
  const { store, ...settings } = options;
  trace.append(evictSlotOp, [], [], { ...settings, layers: oneLayer(store) });
}

/** Operations that are merged, in the order in which they run. */
const MERGED = [compressBlockOp, evictSlotOp, evictNucleusOp] as unknown[];

type Merged = CompressBlock | EvictSlot | EvictNucleus;

/**
 * Compressions and evictions of neighbouring layers with equal settings become one at the end of the step: nothing reads
 * what they change before the next step.
 */
export const mergeEvictions: Rewrite = (operations) => {
  const rest: Operation[] = [];
  const merged: Operation<Merged>[] = [];
  for (const operation of operations) {
    if (!MERGED.includes(operation.definition)) {
      rest.push(operation);
      continue;
    }
    const own = operation as Operation<Merged>;
    const before = merged.find((other) => continues(other, own));
    if (before) {
      const { layers } = before.attributes;
      const attributes = { ...before.attributes, layers: { ...layers, count: layers.count + 1 } };
      merged[merged.indexOf(before)] = { ...before, attributes };
    } else merged.push(own);
  }
  const sorted = merged.toSorted((a, b) => MERGED.indexOf(a.definition) - MERGED.indexOf(b.definition));
  const end = rest.findLastIndex(({ segment }) => segment === "body") + 1;
  return [...rest.slice(0, end), ...sorted as Operation[], ...rest.slice(end)];
};

function continues(before: Operation<Merged>, next: Operation<Merged>): boolean {
  if (before.definition !== next.definition) return false;
  const { layers: a, ...settings } = before.attributes;
  const { layers: b, ...others } = next.attributes;
  return a.first + a.count === b.first &&
    Object.entries(settings).every(([name, value]) => others[name as keyof typeof others] === value);
}
