// Selection by a share of the attention: how many rows and tokens are kept is counted on the GPU, and tables that the host
// wrote for the most there may be are fitted to what there is.

import {
  type OpDefinition,
  resource,
  type Rows,
  type Step,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { evictNucleus as evictNucleusKernel } from "../../wgsl/evict_nucleus.ts";
import {
  narrowSelections as narrowSelectionsKernel,
  narrowTiles as narrowTilesKernel,
} from "../../wgsl/narrow_tables.ts";
import { ATTENTION_UNITS, nucleusBudget as nucleusBudgetKernel } from "../../wgsl/nucleus_budget.ts";
import { NONE, NUCLEUS_WORDS } from "../../wgsl/tables.ts";
import { layerParameters, type LayerRange, type OfLayer, oneLayer } from "./layer_range.ts";
import { rowTable, spansName } from "./row_tables.ts";

interface NucleusBudget {
  readonly selection: string;
  /** The layer, and layers of the table of rules. */
  readonly layer: number;
  readonly ruleLayers: number;
  /** The most that a sequence's scores are together. */
  readonly largest: number;
}

const nucleusBudgetOp: OpDefinition<NucleusBudget> = {
  kind: "nucleusBudget",
  lower(
    { inputs: [scores], outputs: [keeps], attributes: { selection, layer, ruleLayers, largest } },
    emit,
  ): void {
    emit.dispatch(
      nucleusBudgetKernel(),
      [valueOperand(scores), resource(selection), resource("nucleus"), valueOperand(keeps)],
      () => ({ sequences: emit.target.sequences, layer, ruleLayers, units: ATTENTION_UNITS / largest }),
    );
  },
};

/**
 * How many rows before the window each sequence keeps, so that their scores [1][rows] are the share of all that the table
 * of rules says: [sequences] of u32, in its limits and those of the selection.
 */
export function nucleusBudget(trace: Trace, scores: Value, options: NucleusBudget): Value {
  const { rows } = scores;
  const sequences = { ...rows, capacity: Math.max(rows.capacity, trace.target.sequences) };
  const keeps = trace.value("keeps", sequences, 1);
  trace.append(nucleusBudgetOp, [scores], [keeps], options);
  return keeps;
}

const narrowTilesOp: OpDefinition<{ readonly tiles: string; readonly spans: string }> = {
  kind: "narrowTiles",
  lower({ attributes: { tiles, spans } }, emit): void {
    emit.dispatch(
      narrowTilesKernel(),
      [resource(spans), resource(tiles)],
      (counts) => ({ tiles: counts[tiles] }),
    );
  },
};

/** Takes rows that are absent out of a table of tiles of such rows. */
export function narrowTiles(trace: Trace, tiles: string, rows: Rows): void {
  trace.append(narrowTilesOp, [], [], { tiles, spans: spansName(rows) });
}

const narrowSelectionsOp: OpDefinition<{ readonly selection: string; readonly spans: string }> = {
  kind: "narrowSelections",
  lower({ attributes: { selection, spans } }, emit): void {
    emit.dispatch(
      narrowSelectionsKernel(),
      [resource(spans), resource(selection)],
      () => ({ sequences: emit.target.sequences }),
    );
  },
};

/** Fits a table of selections to the rows that there are. */
export function narrowSelections(trace: Trace, selection: string, rows: Rows): void {
  trace.append(narrowSelectionsOp, [], [], { selection, spans: spansName(rows) });
}

/** What a layer keeps of a sequence by a share of the attention. */
export interface NucleusLimits {
  /** Newest positions, kept in any case. */
  readonly window: number;
  /** Fewest tokens. */
  readonly minimum: number;
  /** Share of the attention paid to the tokens before them that is kept. */
  readonly share: number;
  /** Fewest rows of a prompt before its window. */
  readonly least: number;
  /** Most tokens at once. Default: no limit. */
  readonly most?: number;
}

/** Adds the table `nucleus`: rules by sequence and layer. */
export function nucleusTable(
  trace: Trace,
  layers: number,
  rules: (step: Step) => readonly (readonly NucleusLimits[])[],
): void {
  trace.stepTables.set("nucleus", {
    words: ({ sequences }) => sequences * layers * NUCLEUS_WORDS,
    make(step) {
      const all = rules(step).flat();
      const words = new Uint32Array(all.length * NUCLEUS_WORDS);
      const floats = new Float32Array(words.buffer);
      all.forEach(({ window, minimum, share, least, most = NONE }, i) => {
        words.set([window, minimum, 0, least, most], i * NUCLEUS_WORDS);
        floats[i * NUCLEUS_WORDS + 2] = share;
      });
      return words;
    },
  });
}

/** Settings of {@linkcode evictNucleusOp}. */
export interface EvictNucleus {
  readonly layers: LayerRange;
  readonly rows: Rows;
  readonly sinks: number;
  /** Layers of the table of rules. */
  readonly ruleLayers: number;
}

/** The operation, which those of neighbouring layers are merged into. */
export const evictNucleusOp: OpDefinition<EvictNucleus> = {
  kind: "evictNucleus",
  lower({ attributes: { layers, rows, sinks, ruleLayers } }, emit): void {
    const { sequences, reuseDelay } = emit.target;
    emit.dispatch(
      evictNucleusKernel(),
      [
        rowTable(rows),
        resource("extents"),
        resource("slotPositions"),
        resource("freedSlots"),
        resource("slotScores"),
        resource("states"),
        resource("nucleus"),
      ],
      (counts) => ({
        rows: counts[rows.name],
        ...layerParameters(layers),
        sequences,
        ruleLayers,
        sinks,
        delay: reuseDelay,
      }),
    );
  },
};

/** Keeps, of the tokens before the newest, those of the highest scores that hold a share of all attention. */
export function evictNucleus(trace: Trace, options: OfLayer<EvictNucleus>): void {
  const { store, ...settings } = options;
  trace.append(evictNucleusOp, [], [], { ...settings, layers: oneLayer(store) });
}
