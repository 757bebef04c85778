// Runs a model's pipeline over tokens and gives all logits, with every choice of lowering in the test's hands: fusions,
// binding limit, rows of a step, and how many tokens are decoded one by one instead of prefilled.

import { type Cache, createKvCache } from "../../lib/cache/mod.ts";
import { packRows, packSpans, packTiles, tileCount } from "../../lib/generate/tables.ts";
import { sliceRows } from "../../lib/generate/prefill.ts";
import { createTrace, lower, type Plan, type Rewrite, type Rows, type Target } from "../../lib/graph/mod.ts";
import { coresOf, type PipelineModel } from "../../lib/layers/mod.ts";
import { fusions } from "../../lib/ops/mod.ts";
import { TILE_ROWS } from "../../wgsl/attention_prefill.ts";
import { NONE, ROW_WORDS, STATE_WORDS, TILE_WORDS } from "../../wgsl/tables.ts";
import { createPlanRunner } from "./plan_runner.ts";

/** Choices of {@linkcode pipelineLogits}. */
export interface PipelineOptions {
  /** Fusions. Default: all. */
  readonly rewrites?: readonly Rewrite[];
  /** Largest storage binding in bytes; the model's weights must have been split by it. Default: the device's. */
  readonly bindingBytes?: number;
  /** Most rows of a prefill step. Default: all rows. */
  readonly prefillRows?: number;
  /** Most rows whose logits are computed at once. Default: as `prefillRows`. */
  readonly logitRows?: number;
  /** How many tokens of every sequence, the last ones, are decoded one by one. Default: none. */
  readonly decode?: number;
}

/** Logits and the plans that they were computed with. */
export interface PipelineLogits {
  /** By sequence: [tokens, vocabularySize], row-major. */
  readonly logits: readonly Float32Array[];
  /** The plan of prefill, and that of decode where there is one. */
  readonly plans: readonly Plan[];
}

/** Traces and lowers a model to what computes logits. */
export function logitPlan(
  model: PipelineModel,
  target: Omit<Target, "cacheType">,
  rewrites: readonly Rewrite[],
): Plan {
  const trace = createTrace({ ...target, cacheType: model.dtype });
  const { value } = model.pipeline.apply(trace, { type: "tokenIds" });
  return lower(trace, rewrites, { logits: value });
}

/** Runs a loaded model over sequences, packed into one run. */
export async function pipelineLogits(
  model: PipelineModel,
  sequences: readonly (readonly number[])[],
  options: PipelineOptions = {},
): Promise<PipelineLogits> {
  const { rewrites = fusions, decode = 0 } = options;
  const weights = model.store!;
  const { gpu } = weights;
  const width = model.config.vocabularySize;
  const prompts = sequences.map((ids) => ids.slice(0, ids.length - decode));
  const prefillRows = options.prefillRows ?? prompts.reduce((sum, ids) => sum + ids.length, 0);
  const logitRows = options.logitRows ?? prefillRows;
  const capacities = sequences.map((ids) => ids.length);
  const shared = {
    sequences: sequences.length,
    slots: Object.fromEntries(
      coresOf(model).map((_, i) => [`kv.${i}`, capacities.reduce((a, b) => a + b, 0)]),
    ),
    ragged: false,
    lastRows: false,
    reuseDelay: 0,
    longest: Math.max(...capacities),
    features: gpu.features,
    bindingBytes: options.bindingBytes ??
      Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize),
    workgroupBytes: gpu.limits.maxComputeWorkgroupStorageSize,
  };
  const rows: Rows = { name: "rows", capacity: prefillRows, thin: false };
  const logits: Rows = {
    name: "logits",
    capacity: logitRows,
    thin: false,
    from: { rows, map: "logitRows" },
  };
  const prefillPlan = logitPlan(model, { ...shared, phase: "prefill", rows, logits }, rewrites);
  const one: Rows = { name: "rows", capacity: sequences.length, thin: sequences.length <= 8 };
  const decodePlan = decode > 0
    ? logitPlan(model, { ...shared, phase: "decode", rows: one, logits: one }, rewrites)
    : undefined;
  const plans = decodePlan ? [prefillPlan, decodePlan] : [prefillPlan];

  const most = Math.max(prefillRows, sequences.length);
  const cache: Cache = await createKvCache(gpu, {
    requests: prefillPlan.caches,
    capacities,
    dtype: model.dtype,
    bindingBytes: shared.bindingBytes,
  });
  try {
    using runner = await createPlanRunner(gpu, plans, {
      weights,
      cache,
      tables: {
        rows: new Uint32Array(most * ROW_WORDS),
        spans: new Uint32Array(sequences.length * 2),
        tiles: new Uint32Array((Math.ceil(most / TILE_ROWS) + sequences.length) * TILE_WORDS),
        logitRows: new Uint32Array(Math.max(logitRows, sequences.length)),
        states: new Uint32Array(sequences.length * STATE_WORDS),
      },
    });
    const out = sequences.map((ids) => new Float32Array(ids.length * width));
    const feeds = prompts.map((ids, sequence) => ({ sequence, ids, position: 0 }));
    for (const slice of sliceRows(feeds, prefillRows)) {
      const tiles = packTiles(slice, TILE_ROWS);
      runner.write("rows", packRows(slice));
      runner.write("spans", packSpans(slice, sequences.length));
      runner.write("tiles", tiles);
      const counts = {
        rows: slice.length,
        tiles: tileCount(tiles),
        longest: Math.max(...slice.map(({ position }) => position)) + 1,
      };
      runner.run(prefillPlan, { ...counts, logits: 0 }, ["body"]);
      for (let first = 0; first < slice.length; first += logitRows) {
        const group = slice.slice(first, first + logitRows);
        runner.write("logitRows", Uint32Array.from(group, (_, i) => first + i));
        runner.run(prefillPlan, { ...counts, logits: group.length }, ["head"]);
        const data = await runner.read(prefillPlan, "logits", group.length);
        group.forEach(({ sequence, position }, i) =>
          out[sequence].set(data.subarray(i * width, (i + 1) * width), position * width)
        );
      }
    }
    for (let step = 0; decodePlan && step < decode; step++) {
      const states = new Uint32Array(sequences.length * STATE_WORDS);
      sequences.forEach((ids, i) => {
        const position = prompts[i].length + step;
        states.set([0, position, ids[position]], i * STATE_WORDS);
      });
      const table = sequences.map((_, sequence) => ({ token: NONE, sequence, position: 0, index: 0 }));
      runner.write("rows", packRows(table));
      runner.write("spans", packSpans(table, sequences.length));
      runner.write("states", states);
      const longest = Math.max(...prompts.map((ids) => ids.length)) + step + 1;
      runner.run(decodePlan, { rows: sequences.length, logits: sequences.length, tiles: 0, longest });
      const data = await runner.read(decodePlan, "logits", sequences.length);
      sequences.forEach((_, i) =>
        out[i].set(data.subarray(i * width, (i + 1) * width), (prompts[i].length + step) * width)
      );
    }
    return { logits: out, plans };
  } finally {
    cache.release();
  }
}
