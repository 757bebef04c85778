// Cores of one's own: another mix of the projections, and fewer rows out than in.

import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { createKvCache } from "../../lib/cache/mod.ts";
import { packRows, packSpans, packTiles, tileCount } from "../../lib/generate/tables.ts";
import { createTrace, lower, type Rewrite } from "../../lib/graph/mod.ts";
import { type Core, mapCores, type PipelineModel, type Rows, softmaxCore } from "../../lib/layers/mod.ts";
import { packLinears } from "../../lib/ops/fuse.ts";
import { add, alignRows, fusions } from "../../lib/ops/mod.ts";
import { TILE_ROWS } from "../../wgsl/attention_prefill.ts";
import { STATE_WORDS } from "../../wgsl/tables.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { pipelineLogits } from "../harness/pipeline_logits.ts";
import { createPlanRunner } from "../harness/plan_runner.ts";
import { loadRandomLlama, oracleTensors, randomIds, randomLlama } from "../harness/random_llama.ts";
import { type CoreOracle, llamaOracle, rotaryOracle, softmaxOracle } from "../oracles/llama.ts";

const MADE = randomLlama({
  num_attention_heads: 4,
  num_key_value_heads: 4,
  num_hidden_layers: 3,
  hidden_size: 40,
  head_dim: 12,
}, 11);
const IDS = randomIds(11, MADE.config.vocab_size, 12);

/** Key plus value of the row itself: adjacent ranges of one weight that are read whole. */
const SUM_CORE: Core = {
  kind: "sum",
  prefill: "sliced",
  positionLimit: false,
  apply: (trace, { rows, key, value }) => add(trace, key(rows), value(rows)),
};

const sumOracle: CoreOracle = ({ keys, values }) => ({
  values: keys.map((heads, row) => heads.map((key, head) => key.map((x, i) => x + values[row][head][i]))),
});

Deno.test("mapCores() puts a core of one's own into a model, in prefill and decode", async () => {
  const gpu = await sharedGpu();
  using model = await loadRandomLlama(gpu, MADE);
  const softmax = softmaxOracle(rotaryOracle(MADE.config));
  // One layer keeps softmax, so that it finds its cache though its neighbours have none.
  const mixed = mapCores(model, ({ core }, index) => index === 1 ? core : SUM_CORE);
  const want = llamaOracle(MADE.config, oracleTensors(MADE), IDS, {
    core: (rows) => rows.layer === 1 ? softmax(rows) : sumOracle(rows),
  });
  for (const rewrites of [fusions, [packLinears]]) {
    const { logits, plans } = await pipelineLogits(mixed, [IDS], { rewrites, prefillRows: 4, decode: 5 });
    assertLess(relativeError(logits[0], want.logits), 1e-5);
    assertEquals(plans.map(({ caches }) => caches.length), [1, 1]);
  }
  // The model itself is as it was.
  const { logits } = await pipelineLogits(model, [IDS]);
  assertLess(relativeError(logits[0], llamaOracle(MADE.config, oracleTensors(MADE), IDS).logits), 1e-5);
});

/** Values of the rows that are left; what attends to nothing else needs no cache. */
function droppingCore(kept: Rows): Core {
  return {
    kind: "dropping",
    prefill: "whole",
    positionLimit: false,
    apply: (trace, { rows, value }) => value(alignRows(trace, rows, kept)),
  };
}

/** Runs one prefill step whose rows shrink on their way, and gives the logits of the rows that are left. */
async function runDropping(
  model: PipelineModel,
  thin: boolean,
  rewrites: readonly Rewrite[],
  maps: readonly (readonly number[])[],
): Promise<{ logits: Float32Array; gathers: number }> {
  const { gpu } = model.store!;
  const rows: Rows = { name: "rows", capacity: IDS.length, thin };
  // Each shorter than the one before it, by a table of its own.
  const shrunk: Rows[] = [];
  for (const [i, map] of maps.entries()) {
    const from = { rows: shrunk[i - 1] ?? rows, map: `kept ${i}` };
    shrunk.push({ name: `kept ${i}`, capacity: map.length, thin, from });
  }
  const dropping = mapCores(
    model,
    (_, index) => index === 0 ? softmaxCore() : droppingCore(shrunk[index - 1]),
  );
  const trace = createTrace({
    phase: "prefill",
    rows,
    logits: shrunk.at(-1)!,
    sequences: 1,
    slots: {},
    ragged: false,
    lastRows: false,
    reuseDelay: 0,
    longest: IDS.length,
    cacheType: "f32",
    features: gpu.features,
    bindingBytes: gpu.limits.maxStorageBufferBindingSize,
    workgroupBytes: gpu.limits.maxComputeWorkgroupStorageSize,
  });
  const { value } = dropping.pipeline.apply(trace, { type: "tokenIds" });
  const plan = lower(trace, rewrites, { logits: value });
  const cache = await createKvCache(gpu, {
    requests: plan.caches,
    capacities: [IDS.length],
    dtype: "f32",
    bindingBytes: gpu.limits.maxStorageBufferBindingSize,
  });
  const table = IDS.map((token, i) => ({ token, sequence: 0, position: i, index: i }));
  const tiles = packTiles(table, TILE_ROWS);
  using runner = await createPlanRunner(gpu, [plan], {
    weights: model.store!,
    cache,
    tables: {
      rows: packRows(table),
      spans: packSpans(table, 1),
      tiles,
      states: new Uint32Array(STATE_WORDS),
      ...Object.fromEntries(maps.map((map, i) => [`kept ${i}`, Uint32Array.from(map)])),
    },
  });
  const counts = Object.fromEntries(maps.map((map, i) => [`kept ${i}`, map.length]));
  runner.run(plan, { rows: IDS.length, tiles: tileCount(tiles), longest: IDS.length, ...counts });
  const logits = await runner.read(plan, "logits", maps.at(-1)!.length);
  cache.release();
  return { logits, gathers: plan.dispatches.filter(({ operation }) => operation === "gatherRows").length };
}

Deno.test("residual() gathers its own input by the rows that a core leaves", async () => {
  const gpu = await sharedGpu();
  using model = await loadRandomLlama(gpu, MADE);
  const softmax = softmaxOracle(rotaryOracle(MADE.config));
  const maps = [[0, 1, 4, 5, 9, 10], [1, 3, 5]];
  const want = llamaOracle(MADE.config, oracleTensors(MADE), IDS, {
    core: (rows) => {
      if (rows.layer === 0) return softmax(rows);
      const kept = maps[rows.layer - 1];
      return { kept, values: kept.map((row) => rows.values[row]) };
    },
  });
  assertEquals(want.positions, [1, 5, 10]);
  for (const thin of [false, true]) {
    for (const rewrites of [fusions, [packLinears]]) {
      const { logits, gathers } = await runDropping(model, thin, rewrites, maps);
      assertLess(relativeError(logits, want.logits), 1e-5, `thin ${thin}`);
      // Twice the core's normed rows, twice the residual's input.
      assertEquals(gathers, 4);
    }
  }
});

Deno.test("a core that drops no row costs no gather", async () => {
  const gpu = await sharedGpu();
  using model = await loadRandomLlama(gpu, MADE);
  const { plans } = await pipelineLogits(model, [IDS], { decode: 1 });
  const gathers = plans.map(({ dispatches }) =>
    dispatches.filter(({ operation }) => operation === "gatherRows").length
  );
  // In prefill the rows whose logits are wanted.
  assertEquals(gathers, [1, 0]);
});

Deno.test("a core that leaves rows from elsewhere is refused in words", async () => {
  const gpu = await sharedGpu();
  using model = await loadRandomLlama(gpu, MADE);
  const strangers: Rows = { name: "strangers", capacity: 3, thin: false };
  const wrong = mapCores(model, () => ({
    ...SUM_CORE,
    apply: (trace, { shape }) => trace.value("values", strangers, shape.heads * shape.headSize),
  }));
  await assertRejects(
    () => pipelineLogits(wrong, [IDS]),
    TypeError,
    "Rows strangers were not taken from rows rows",
  );
});
