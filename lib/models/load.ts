// Loading: tensors stream from the checkpoint to the GPU, one chunk at a time.

import type { StorageType } from "../../wgsl/kernel.ts";
import type { Gpu } from "../gpu/mod.ts";
import { createWeightStore, type Weight, weightBytes, type WeightStore } from "../graph/mod.ts";
import { loadTokenizer } from "../text/mod.ts";
import { type Checkpoint, type OnChunk, openCheckpoint, type ReadOptions } from "../weights/mod.ts";
import type { TensorSource, WeightSource } from "./architecture.ts";
import { readArchitecture, readDefaults } from "./describe.ts";
import { matchTensors } from "./match_tensors.ts";
import type { Model } from "./model.ts";

/** How far loading is. */
export interface LoadProgress {
  /** Bytes on the GPU so far. */
  readonly loaded: number;
  /** Bytes in the end. */
  readonly total: number;
  /** Tensor being read. */
  readonly tensor: string;
}

/** Options of {@linkcode loadModel}. */
export interface LoadModelOptions {
  /** Storage type of weights and caches; sums are f32. Default: `f16` where the device has it, else `f32`. */
  readonly dtype?: StorageType;
  /** Stops loading; nothing stays allocated. */
  readonly signal?: AbortSignal;
  /** Told after every chunk. */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** What is written but not yet on the device is held by the host as well; so much of it at the most, and a chunk. */
const FLUSH_BYTES = 32 * 2 ** 20;

/**
 * Loads a model from a folder in Hugging Face layout: `config.json`, `model.safetensors` (or shards with an index) and,
 * if there, `tokenizer.json` and `generation_config.json`. Host memory stays near one chunk of a tensor.
 *
 * @throws {Error} when a file is missing or malformed, a tensor is missing, has another shape or holds NaN.
 * @throws {RangeError} when values do not fit f16, or the model does not fit the memory ceiling.
 */
export async function loadModel(gpu: Gpu, directory: string, options: LoadModelOptions = {}): Promise<Model> {
  const start = performance.now();
  const dtype = options.dtype ?? (gpu.features.f16 ? "f16" : "f32");
  if (dtype === "f16" && !gpu.features.f16) {
    throw new RangeError("This device has no shader-f16: load the model with dtype f32");
  }
  options.signal?.throwIfAborted();
  const architecture = await readArchitecture(directory, dtype);
  const defaults = await readDefaults(directory, architecture.config.eosIds);
  const tokenizer = await loadTokenizer(directory);
  using checkpoint = await openCheckpoint(directory);
  // Before anything is allocated.
  const { names, warnings } = matchTensors(architecture, checkpoint);
  const total = architecture.sources.reduce((sum, { weight }) => sum + weightBytes(weight), 0);
  gpu.memory.require(total, `the weights of ${directory}`);

  const store = createWeightStore(gpu);
  try {
    let loaded = 0;
    for (const source of architecture.sources) {
      await store.allocate(source.weight);
      loaded = await readWeight(source, names, checkpoint, store, options, { loaded, total });
    }
    gpu.check();
  } catch (error) {
    store.release();
    throw error;
  }
  let disposed = false;
  return {
    directory,
    config: architecture.config,
    pipeline: architecture.pipeline,
    dtype,
    weights: architecture.sources.map((source) => source.weight),
    store,
    ...(tokenizer ? { tokenizer } : {}),
    defaults,
    warnings,
    loadMs: performance.now() - start,
    [Symbol.dispose](): void {
      if (disposed) return;
      disposed = true;
      store.release();
    },
  };
}

async function readWeight(
  { weight, tensors }: WeightSource,
  names: ReadonlyMap<TensorSource, string>,
  checkpoint: Checkpoint,
  store: WeightStore,
  options: LoadModelOptions,
  progress: { loaded: number; total: number },
): Promise<number> {
  let { loaded } = progress;
  let first = 0;
  for (const tensor of tensors) {
    const name = names.get(tensor);
    const elements = tensor.shape.reduce((a, b) => a * b, 1);
    const take = async (bytes: Uint8Array<ArrayBuffer>, element: number): Promise<void> => {
      store.write(weight, first + element, bytes);
      if (Math.floor((loaded + bytes.byteLength) / FLUSH_BYTES) > Math.floor(loaded / FLUSH_BYTES)) {
        await store.flush();
      }
      loaded += bytes.byteLength;
      options.onProgress?.({ loaded, total: progress.total, tensor: name ?? tensor.names[0] });
    };
    const read = (onChunk: OnChunk) =>
      readFinite(checkpoint, name!, weight, onChunk, options.signal ? { signal: options.signal } : {});
    if (name !== undefined && !tensor.convert) {
      await read(take);
      first += elements;
      continue;
    }
    const values = tensor.fallback?.slice() ?? new Float32Array(elements);
    if (name !== undefined) {
      await read((bytes, element) => {
        values.set(new Float32Array(bytes.slice().buffer), element);
      });
    }
    const stored = tensor.convert ? tensor.convert(values) : values;
    await take(new Uint8Array(stored.buffer), 0);
    first += stored.length;
  }
  return loaded;
}

/** Reads a tensor that a model can work with. */
async function readFinite(
  checkpoint: Checkpoint,
  name: string,
  { dtype }: Weight,
  onChunk: OnChunk,
  options: ReadOptions,
): Promise<void> {
  const report = await checkpoint.read(name, dtype, onChunk, options);
  if (report.nonFinite > 0) {
    throw new RangeError(
      `Tensor ${name} holds ${report.nonFinite} values that are NaN or infinite, the first at element ` +
        `${report.firstNonFinite}: the checkpoint is damaged`,
    );
  }
  if (report.outOfRange > 0) {
    throw new RangeError(
      `Tensor ${name} holds ${report.outOfRange} values beyond 65504, which f16 cannot hold: load the model with dtype f32`,
    );
  }
}
