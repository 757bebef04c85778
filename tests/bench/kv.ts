// Full against pruned KV cache, of one model in one run: prefill, decode, and the batch that fits a memory budget.

import { createEngine } from "../../lib/generate/engine.ts";
import { generateSpec } from "../../lib/generate/generate.ts";
import { generate, type PlanReport, planRun } from "../../lib/generate/mod.ts";
import { resolveOptions } from "../../lib/generate/options.ts";
import { deviceTraits, planFor, stepLimits } from "../../lib/generate/plans.ts";
import { writeSampling } from "../../lib/generate/sampling_tables.ts";
import { formatBytes, type Gpu, GpuMemoryError } from "../../lib/gpu/mod.ts";
import type { Turn } from "../../lib/layers/mod.ts";
import { loadModel, type Model } from "../../lib/models/mod.ts";
import { type KvPolicy, pyramidInfer, withKvPruning } from "../../lib/transforms/mod.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import { randomLlama } from "./models.ts";
import { markdownTable, short } from "./table.ts";

/** A model with nothing pruned, or by a policy. */
interface Variant {
  readonly name: string;
  readonly policy?: KvPolicy;
}

const KEEPS = [0.8, 0.6, 0.45, 0.35, 0.2];
const NEW_TOKENS = 256;

/** Kernels that only a pruned model has. */
const SELECTING = /^(columnScores|poolScores|selectRows|appendSelected|compact|stage|storeScores|slotScores)/;

function variantsOf(keeps: readonly number[]): Variant[] {
  return [
    { name: "full" },
    ...keeps.map((keep) => ({ name: `keep ${keep}`, policy: pyramidInfer({ keep }) })),
    { name: "default schedule", policy: pyramidInfer() },
  ];
}

function apply(model: Model, { policy }: Variant): Model {
  return policy ? withKvPruning(policy)(model) : model;
}

function promptOf(model: Model, length: number): number[] {
  return Array.from({ length }, (_, i) => (i * 7919) % model.config.vocabularySize);
}

/** Tells where a long run is. */
function tell(text: string): void {
  console.error(`${(performance.now() / 1000).toFixed(1).padStart(6)} s  ${text}`);
}

/** Adds a row and tells it at once, so that a run that is cut off has shown it. */
function add(rows: (string | number)[][], row: (string | number)[]): void {
  tell(row.join("  "));
  rows.push(row);
}

function planOf(model: Model, promptTokens: number, sequences = 1): PlanReport {
  const device = deviceTraits(model.store!.gpu);
  return planRun(model, { promptTokens, maxTokens: NEW_TOKENS, sequences, device });
}

/** Median of three times to the first token, after one run that warms up; of long prompts one time after a shorter one. */
async function timePrefill(model: Model, length: number): Promise<number> {
  const long = length >= LONG_PROMPT;
  const times: number[] = [];
  for (const tokens of long ? [1024, length] : [length, length, length, length]) {
    const options = { maxTokens: 1, temperature: 0, ignoreEos: true };
    const { timing } = await generate(model, promptOf(model, tokens), options).record;
    times.push(tokens / timing.prefillTokensPerSecond * 1000);
  }
  return long ? times[1] : times.slice(1).sort((a, b) => a - b)[1];
}

/** Share of kernel time that scores and selects. */
async function selectingShare(model: Model, length: number): Promise<number> {
  const { kernels = [] } = await generate(model, promptOf(model, length), {
    maxTokens: 1,
    temperature: 0,
    timings: true,
  }).record;
  const all = kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const own = kernels.filter(({ name }) => SELECTING.test(name));
  return own.reduce((sum, { milliseconds }) => sum + milliseconds, 0) / all;
}

async function benchPrefill(
  name: string,
  model: Model,
  lengths: readonly number[],
  timed: boolean,
): Promise<(string | number)[][]> {
  const rows: (string | number)[][] = [];
  for (const length of lengths) {
    let full = NaN;
    for (const variant of variantsOf(length >= LONG_PROMPT ? [0.45, 0.2] : [0.45])) {
      const made = apply(model, variant);
      const ms = await timePrefill(made, length);
      if (!variant.policy) full = ms;
      const share = timed && variant.policy && length < LONG_PROMPT ? await selectingShare(made, length) : 0;
      add(rows, [
        name,
        length,
        variant.name,
        short(ms),
        short(ms / full),
        share ? `${(share * 100).toFixed(1)} %` : "–",
        formatBytes(planOf(made, length).bytes.cache),
      ]);
    }
  }
  return rows;
}

/** Kernels whose time grows with the cache. */
const ATTENDING = /^(attentionDecode|attentionReduce)/;
/** Kernels that keep the cache, and keep it small. */
const UPKEEP = /^(slotScores|compressBlock|evictSlot|cacheAppend)/;

/** From here on prompts are long: the cache shows in every time, and few runs must do. */
const LONG_PROMPT = 32768;

/** Times of a decode step in milliseconds. */
interface StepTime {
  /** The step. */
  readonly ms: number;
  /** What attention takes of it, by timestamps; NaN where it was not timed. */
  readonly attending: number;
  /** What the upkeep of the cache takes of it. */
  readonly upkeep: number;
}

/** Times a decode step, and where the cache is long enough to show, what attention takes of it. */
async function timeDecode(model: Model, length: number, batch: number, steps: number): Promise<StepTime> {
  const time = await timeSteps(model, length, batch, steps, false);
  if (!model.store!.gpu.features.timestamps || length < LONG_PROMPT) return time;
  return { ...await timeSteps(model, length, batch, 4, true), ms: time.ms };
}

/** Times a decode step of `batch` sequences that have a synthetic cache of what a prompt would leave. */ async function timeSteps(
  model: Model,
  length: number,
  batch: number,
  steps: number,
  timed: boolean,
): Promise<StepTime> {
  const gpu = model.store!.gpu;
  const options = resolveOptions(model, { temperature: 0, ignoreEos: true });
  const turn: Turn = { tokens: length, maxTokens: NEW_TOKENS, position: 0 };
  const turns = new Array<Turn>(batch).fill(turn);
  // Nothing is fed, so no rows are needed for prompts.
  const whole = generateSpec(model, turns, options);
  const spec = { ...whole, timed, sizes: { ...whole.sizes, prefillRows: 32 } };
  const engine = await createEngine(gpu, spec);
  tell(`${batch} × ${length} tokens, ${formatBytes(engine.bytes.cache)}: made`);
  try {
    const prompts = turns.map(() => [1]);
    writeSampling(
      engine,
      options,
      turns.map(() => ({ position: length, remaining: NEW_TOKENS })),
      prompts,
    );
    const plan = planFor(model, deviceTraits(gpu), "decode", spec.purpose, spec.sizes);
    const step = { sequences: turns.map((one) => ({ turn: one, rows: 0 })) };
    for (const [table, { make }] of plan.stepTables) engine.write(table, make(step, stepLimits(spec.sizes)));
    // Lengths as after the prompt, positions from 0 up.
    const { layout } = engine.cache;
    const count = layout.layers.length * batch * layout.kvHeads;
    for (const { request, capacities } of layout.layers) {
      const stored = request.keeps ? request.keeps(turn).stored : length;
      for (let sequence = 0; sequence < batch; sequence++) {
        const positions = Uint32Array.from({ length: stored }, (_, i) => i);
        for (let head = 0; head < layout.kvHeads; head++) {
          const index = (request.layer * batch + sequence) * layout.kvHeads + head;
          if (index >= count || stored > capacities[sequence]) throw new Error("The cache is too small");
          engine.write("extents", new Uint32Array([stored, stored]), (index * EXTENT_WORDS + 2) * 4);
          const first = layout.layers[request.layer].positions(sequence, head);
          if (head === 0) engine.write("slotPositions", positions, first * 4);
        }
      }
    }
    engine.beginDecode([...turns.keys()]);
    tell("lengths written");
    let best = Infinity;
    for (let i = 0; i < 4; i++) {
      const commands = engine.decode(steps, length + (i + 1) * steps);
      await engine.idle();
      const start = performance.now();
      gpu.device.queue.submit([commands]);
      await engine.idle();
      if (i > 0) best = Math.min(best, (performance.now() - start) / steps);
    }
    if (!timed) return { ms: best, attending: NaN, upkeep: NaN };
    const kernels = await engine.times();
    const msOf = (names: RegExp) =>
      kernels.reduce((sum, { name, milliseconds }) => sum + (names.test(name) ? milliseconds : 0), 0) /
      (4 * steps);
    return { ms: best, attending: msOf(ATTENDING), upkeep: msOf(UPKEEP) };
  } finally {
    engine.release();
  }
}

async function benchDecode(
  name: string,
  model: Model,
  lengths: readonly number[],
  batches: readonly number[],
  steps: number,
): Promise<(string | number)[][]> {
  const rows: (string | number)[][] = [];
  for (const length of lengths) {
    for (const batch of length >= LONG_PROMPT ? batches : [1]) {
      let full: StepTime = { ms: NaN, attending: NaN, upkeep: NaN };
      for (const variant of variantsOf(KEEPS)) {
        const made = apply(model, variant);
        const time = await timeDecode(made, length, batch, steps);
        if (!variant.policy) full = time;
        const { bytes } = planOf(made, length, batch);
        const number = (value: number) => Number.isNaN(value) ? "–" : short(value);
        add(rows, [
          name,
          length,
          batch,
          variant.name,
          short(batch * 1000 / time.ms),
          short(full.ms / time.ms),
          number(time.attending),
          number(time.upkeep),
          number(full.attending / time.attending),
          number((full.attending + full.upkeep) / (time.attending + time.upkeep)),
          formatBytes(bytes.cache),
          `${(bytes.cache / (bytes.cache + bytes.weights) * 100).toFixed(0)} %`,
        ]);
      }
    }
  }
  return rows;
}

/** Most sequences whose weights, cache and buffers stay within a budget. */
function batchFor(model: Model, length: number, memory: number): number {
  const bytesOf = (sequences: number): number => {
    const { bytes } = planOf(model, length, sequences);
    return bytes.weights + bytes.cache + bytes.activations;
  };
  const fits = (sequences: number): boolean => {
    try {
      return bytesOf(sequences) <= memory;
    } catch (error) {
      // Over the binding limit.
      if (error instanceof RangeError) return false;
      throw error;
    }
  };
  // A plan of long prompts takes a second: begin near the answer.
  const { weights, cache } = planOf(model, length).bytes;
  let sequences = Math.max(0, Math.floor((memory - weights) / cache));
  while (sequences > 0 && !fits(sequences)) sequences--;
  while (fits(sequences + 1)) sequences++;
  return sequences;
}

async function benchBatch(
  name: string,
  model: Model,
  length: number,
  memory: number,
  keeps: readonly number[],
  steps: number,
): Promise<(string | number)[][]> {
  const rows: (string | number)[][] = [];
  let full = NaN;
  for (const variant of variantsOf(keeps)) {
    const made = apply(model, variant);
    const batch = batchFor(made, length, memory);
    if (batch === 0) {
      add(rows, [name, length, formatBytes(memory), variant.name, 0, "–", "–"]);
      continue;
    }
    const time = await timeSteps(made, length, batch, steps, false).catch((error) => {
      if (error instanceof GpuMemoryError) return undefined;
      throw error;
    });
    if (!time) {
      add(rows, [name, length, formatBytes(memory), variant.name, batch, "not enough memory", "–"]);
      continue;
    }
    const { ms } = time;
    const perSecond = batch * 1000 / ms;
    if (!variant.policy) full = perSecond;
    add(rows, [
      name,
      length,
      formatBytes(memory),
      variant.name,
      batch,
      short(perSecond),
      short(perSecond / full),
    ]);
  }
  return rows;
}

/** What is measured of a model. */
interface KvBench {
  readonly prefill: readonly number[];
  readonly decode: readonly number[];
  /** Numbers of sequences that decode together, where prompts are long. */
  readonly sequences: readonly number[];
  readonly batch: readonly {
    readonly length: number;
    readonly memory: number;
    readonly keeps: readonly number[];
  }[];
  readonly steps: number;
}

const GPU_BENCH: Readonly<Record<string, KvBench>> = {
  "Llama-3.2-1B": {
    prefill: [512, 2048, 8192, 32768],
    decode: [512, 2048, 8192, 32768],
    sequences: [1, 4],
    batch: [
      { length: 8192, memory: 16 * 2 ** 30, keeps: [0.45, 0.35, 0.2] },
      { length: 32768, memory: 12 * 2 ** 30, keeps: [0.45, 0.35] },
    ],
    steps: 16,
  },
  "Llama-3-8B": {
    prefill: [512, 2048, 8192, 32768],
    decode: [512, 2048, 8192, 32768],
    sequences: [1, 4, 11],
    batch: [
      { length: 8192, memory: 40 * 2 ** 30, keeps: [0.45, 0.35, 0.2] },
      { length: 32768, memory: 60 * 2 ** 30, keeps: [0.35, 0.45] },
      { length: 32768, memory: 40 * 2 ** 30, keeps: [0.35, 0.45] },
    ],
    steps: 16,
  },
};

const CPU_BENCH: KvBench = {
  prefill: [512, 1500],
  decode: [512, 1500],
  sequences: [1],
  batch: [{ length: 1024, memory: 64 * 2 ** 20, keeps: [0.35] }],
  steps: 8,
};

/** Runs the comparison; `only` names one model, `part` one of prefill, decode, batch,
 * `prompt` a length of prompts. */
export async function benchKv(gpu: Gpu, only?: string, part?: string, prompt?: number): Promise<string> {
  const long = (length: number) => prompt === undefined || prompt === length;
  const wanted = (name: string) => part === undefined || part === name;
  const tables: Record<string, (string | number)[][]> = { prefill: [], decode: [], batch: [] };
  const measure = async (name: string, model: Model, bench: KvBench) => {
    for (const { length, memory, keeps } of wanted("batch") ? bench.batch : []) {
      if (!long(length)) continue;
      tables.batch.push(...await benchBatch(name, model, length, memory, keeps, bench.steps));
    }
    if (wanted("decode")) {
      tables.decode.push(
        ...await benchDecode(name, model, bench.decode.filter(long), bench.sequences, bench.steps),
      );
    }
    if (!wanted("prefill")) return;
    tables.prefill.push(
      ...await benchPrefill(name, model, bench.prefill.filter(long), gpu.features.timestamps),
    );
  };
  if (gpu.adapter.isFallback) {
    using model = await loadModel(
      gpu,
      new URL("../../examples/models/novel-llama", import.meta.url).pathname,
    );
    await measure("novel-llama", model, CPU_BENCH);
  } else {
    for (const [name, bench] of Object.entries(GPU_BENCH)) {
      if (only && name !== only) continue;
      using model = await randomLlama(gpu, name, 40960);
      tell(`${name}: ${formatBytes(model.store!.bytes)} of weights`);
      await measure(name, model, bench);
    }
  }
  return [
    "Prefill: time to the first token.\n\n" + markdownTable(
      ["model", "prompt", "cache", "ms", "of full", "scoring and selecting", "bytes"],
      tables.prefill,
    ),
    `Decode with synthetic caches of that length, ${NEW_TOKENS} new tokens planned. Attention and the upkeep of ` +
    "the cache (appending, scoring, evicting) in ms a step, by timestamps.\n\n" +
    markdownTable(
      [
        "model",
        "prompt",
        "sequences",
        "cache",
        "tokens/s",
        "gain",
        "attention",
        "upkeep",
        "attention's gain",
        "with upkeep",
        "bytes",
        "cache of what a step reads",
      ],
      tables.decode,
    ),
    "Batch that fits a memory budget, and its decode rate (synthetic caches).\n\n" + markdownTable(
      ["model", "prompt", "budget", "cache", "sequences", "tokens/s", "gain"],
      tables.batch,
    ),
  ].join("\n\n");
}
