// Whole models: time to first token and decode rate, of the model in the box and of Llama shapes with random weights.

import { formatBytes, type Gpu } from "../../lib/gpu/mod.ts";
import { createWeightStore, weightBytes } from "../../lib/graph/mod.ts";
import { generate } from "../../lib/generate/mod.ts";
import { rotaryEmbedding } from "../../lib/layers/mod.ts";
import { llama, type LlamaConfig, llamaWeights, loadModel, type Model } from "../../lib/models/mod.ts";
import type { Ceilings } from "./ceilings.ts";
import { markdownTable, short } from "./table.ts";

interface Shape {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly vocabularySize: number;
  readonly tied: boolean;
}

/** Published shapes. */
const SHAPES: Readonly<Record<string, Shape>> = {
  "Llama-3.2-1B": {
    hiddenSize: 2048,
    intermediateSize: 8192,
    layers: 16,
    heads: 32,
    kvHeads: 8,
    headSize: 64,
    vocabularySize: 128256,
    tied: true,
  },
  "Llama-3-8B": {
    hiddenSize: 4096,
    intermediateSize: 14336,
    layers: 32,
    heads: 32,
    kvHeads: 8,
    headSize: 128,
    vocabularySize: 128256,
    tied: false,
  },
};

const CONTEXT = 8192;

/** A Llama of a published shape with random weights. */
export async function randomLlama(gpu: Gpu, name: string, context = CONTEXT): Promise<Model> {
  const shape = SHAPES[name];
  const dtype = gpu.features.f16 ? "f16" : "f32";
  const config: LlamaConfig = {
    ...shape,
    epsilon: 1e-5,
    rotary: rotaryEmbedding({ theta: 500000, size: shape.headSize, positions: context }),
    contextLength: context,
  };
  const { weights, sources } = llamaWeights(config, dtype);
  const store = createWeightStore(gpu);
  // One block of small random numbers, written again and again.
  const block = 2 ** 22;
  const random = new Float32Array(block);
  let state = 1;
  for (let i = 0; i < block; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    random[i] = (state / 2 ** 32 - 0.5) * 0.04;
  }
  const half = new Uint8Array(new Float16Array(random).buffer);
  const full = new Uint8Array(random.buffer);
  for (const { weight } of sources) {
    await store.allocate(weight);
    const total = weight.rows * weight.columns;
    const bytes = weight.dtype === "f16" ? half : full;
    const size = weight.dtype === "f16" ? 2 : 4;
    for (let at = 0; at < total; at += block) {
      store.write(weight, at, bytes.subarray(0, Math.min(block, total - at) * size));
    }
    // What is written but not submitted is held a second time.
    await store.flush();
  }
  return {
    directory: name,
    config: {
      modelType: "llama",
      vocabularySize: shape.vocabularySize,
      hiddenSize: shape.hiddenSize,
      contextLength: context,
      eosIds: [],
    },
    pipeline: llama(config, weights),
    dtype,
    weights: sources.map(({ weight }) => weight),
    store,
    defaults: { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, eosIds: [] },
    warnings: [],
    loadMs: 0,
    [Symbol.dispose]: () => store.release(),
  };
}

/** One cell: a model, a batch and a prompt length. */
interface Cell {
  readonly batch: number;
  readonly prompt: number;
  readonly tokens: number;
}

/** Runs cells and returns table rows: each run twice, the second is told. */
async function measure(
  name: string,
  model: Model,
  cells: readonly Cell[],
  ceilings: Ceilings,
): Promise<(string | number)[][]> {
  const rows: (string | number)[][] = [];
  const weights = model.weights.reduce((sum, weight) => sum + weightBytes(weight), 0);
  for (const { batch, prompt, tokens } of cells) {
    const prompts = Array.from(
      { length: batch },
      (_, b) =>
        Array.from({ length: prompt }, (_, i) => (i * 7919 + b * 104729) % model.config.vocabularySize),
    );
    const options = { maxTokens: tokens, temperature: 0, ignoreEos: true };
    await generate(model, prompts, { ...options, maxTokens: 2 }).record;
    const [record] = await generate(model, prompts, options).record;
    const { timing, bytes, readbacks } = record;
    // A decode step reads every weight once and, on average, the cache of the prompt and half of the new tokens.
    const step = weights + bytes.cache * (prompt + tokens / 2) / (prompt + tokens);
    const most = batch * ceilings.bytesPerSecond / step;
    rows.push([
      name,
      batch,
      prompt,
      short(timing.timeToFirstTokenMs),
      short(timing.prefillTokensPerSecond),
      short(timing.decodeTokensPerSecond),
      short(most),
      `${(timing.decodeTokensPerSecond / most * 100).toFixed(0)} %`,
      readbacks,
      formatBytes(bytes.peak),
    ]);
  }
  return rows;
}

/** Times whole models and returns a Markdown table. */
export async function benchModels(gpu: Gpu, ceilings: Ceilings): Promise<string> {
  const rows: (string | number)[][] = [];
  {
    const directory = new URL("../../examples/models/novel-llama", import.meta.url).pathname;
    using model = await loadModel(gpu, directory);
    const cells = [{ batch: 1, prompt: 16, tokens: 256 }, { batch: 8, prompt: 256, tokens: 128 }];
    rows.push(...await measure("novel-llama", model, cells, ceilings));
  }
  for (const name of gpu.adapter.isFallback ? [] : Object.keys(SHAPES)) {
    using model = await randomLlama(gpu, name);
    const cells = [
      { batch: 1, prompt: 512, tokens: 128 },
      { batch: 8, prompt: 512, tokens: 64 },
      { batch: 32, prompt: 512, tokens: 64 },
    ];
    rows.push(...await measure(name, model, cells, ceilings));
  }
  return markdownTable([
    "model",
    "batch",
    "prompt",
    "first token ms",
    "prefill tokens/s",
    "decode tokens/s",
    "ceiling",
    "of it",
    "read-backs",
    "peak",
  ], rows);
}
