// A model without its weights: what its files say of it. Needs no GPU; plans are printed from it.

import { join } from "@std/path";
import type { StorageType } from "../../wgsl/kernel.ts";
import { loadTokenizer } from "../text/mod.ts";
import { hasCheckpoint, openCheckpoint } from "../weights/mod.ts";
import { type Architecture, type ArchitectureFactory, configReader } from "./architecture.ts";
import { llamaArchitecture } from "./llama.ts";
import { matchTensors } from "./match_tensors.ts";
import type { GenerationDefaults, Model } from "./model.ts";
import { transNormerArchitecture } from "./transnormer.ts";
import { transNormerLlmArchitecture } from "./transnormer_llm.ts";

/** Two families have one `model_type`: TransNormerLLM's checkpoints count `decoder_layers`. */
const transNormerFamily: ArchitectureFactory = (config, dtype) =>
  config.fields.decoder_layers == null
    ? transNormerArchitecture(config, dtype)
    : transNormerLlmArchitecture(config, dtype);

/** Architectures by `model_type`. */
export const ARCHITECTURES: Readonly<Record<string, ArchitectureFactory>> = {
  llama: llamaArchitecture,
  transnormer: transNormerFamily,
};

async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(`${path} is not JSON (${(error as Error).message}): download it again`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(`${path} must hold a JSON object`);
  }
  return value as Record<string, unknown>;
}

/**
 * Reads `config.json` and picks the architecture.
 *
 * @throws {Error} when there is no `config.json`, or its `model_type` is unknown.
 * @throws {TypeError} when a field is malformed or asks for what is not computed.
 */
export async function readArchitecture(directory: string, dtype: StorageType): Promise<Architecture> {
  const path = join(directory, "config.json");
  const fields = await readJson(path);
  if (!fields) {
    throw new Error(`There is no config.json in ${directory}: name the folder of a Hugging Face checkpoint`);
  }
  const type = fields.model_type;
  const known = Object.keys(ARCHITECTURES);
  if (typeof type !== "string" || !Object.hasOwn(ARCHITECTURES, type)) {
    throw new Error(
      `${path}: model_type ${JSON.stringify(type)} is not supported: known are ${known.join(", ")}`,
    );
  }
  return ARCHITECTURES[type](configReader(path, fields), dtype);
}

/** Reads `generation_config.json`; without one, generation is greedy. */
export async function readDefaults(
  directory: string,
  eosIds: readonly number[],
): Promise<GenerationDefaults> {
  const path = join(directory, "generation_config.json");
  const reader = configReader(path, await readJson(path) ?? {});
  const sampled = reader.flag("do_sample", false);
  const share = (name: string, off: number) => {
    const value = reader.fields[name] ?? off;
    if (typeof value !== "number" || !(value >= 0 && value <= 1)) {
      throw new TypeError(`${path}: ${name} must be from 0 to 1: current value is ${value}`);
    }
    return value;
  };
  const own = reader.ids("eos_token_id");
  return {
    temperature: sampled ? reader.positive("temperature", 1) : 0,
    topP: sampled ? share("top_p", 1) : 1,
    topK: sampled ? reader.integer("top_k", 0, 0) : 0,
    minP: sampled ? share("min_p", 0) : 0,
    repetitionPenalty: reader.positive("repetition_penalty", 1),
    eosIds: own.length ? own : eosIds,
  };
}

/** Options of {@linkcode describeModel}. */
export interface DescribeModelOptions {
  /** Storage type of weights and caches. Default: `f16`. */
  readonly dtype?: StorageType;
}

/** Whether the weights are those that are needed, by their header; of a model without weights nothing is said. */
async function checkHeader(directory: string, architecture: Architecture): Promise<readonly string[]> {
  if (!await hasCheckpoint(directory)) return [];
  using checkpoint = await openCheckpoint(directory);
  return matchTensors(architecture, checkpoint).warnings;
}

/**
 * Reads everything of a model but its weights, and of these, if they are there, the header; enough to make and print plans.
 *
 * @throws {Error} when a file is malformed, or a tensor is missing or has another shape.
 */
export async function describeModel(directory: string, options: DescribeModelOptions = {}): Promise<Model> {
  const dtype = options.dtype ?? "f16";
  const architecture = await readArchitecture(directory, dtype);
  const tokenizer = await loadTokenizer(directory);
  return {
    directory,
    config: architecture.config,
    pipeline: architecture.pipeline,
    dtype,
    weights: architecture.sources.map((source) => source.weight),
    ...(tokenizer ? { tokenizer } : {}),
    defaults: await readDefaults(directory, architecture.config.eosIds),
    warnings: await checkHeader(directory, architecture),
    loadMs: 0,
    [Symbol.dispose]: () => {},
  };
}
