// Opens the GPU and loads a model, telling what is worth knowing.

import { formatBytes, type Gpu, loadModel, type Model, openGpu } from "../../mod.ts";
import { modelDirectory } from "./files.ts";
import type { Values } from "./flags.ts";
import { idleCardWarning } from "./graphics_card.ts";
import type { Io } from "./io.ts";
import { pruned } from "./prune.ts";
import { statusLine } from "./status_line.ts";

/** Tells of a graphics card that lies idle. */
export async function warnIdleCard(io: Io, gpu: Gpu): Promise<void> {
  if (!gpu.adapter.isFallback) return;
  const card = await io.graphicsCard();
  if (card) io.stderr.write(`warning: ${idleCardWarning(card, gpu.adapter.description)}\n`);
}

/** Loads the model that the flags name, pruned as they say, and works with it; frees it and the GPU at the end, however that comes. */
export async function withModel<T>(
  io: Io,
  values: Values,
  signal: AbortSignal,
  work: (model: Model) => Promise<T>,
): Promise<T> {
  const quiet = values.quiet ?? false;
  const directory = await modelDirectory(io, values);
  using gpu = await openGpu({ memory: values.memory });
  if (!quiet) await warnIdleCard(io, gpu);
  const status = statusLine(io, quiet);
  let model: Model;
  try {
    model = await loadModel(gpu, directory, {
      dtype: values.dtype,
      signal,
      onProgress: ({ loaded, total }) =>
        status.show(`Loading ${Math.floor(loaded / total * 100)} % of ${formatBytes(total)}`),
    });
  } finally {
    status.clear();
  }
  using loaded = model;
  if (!quiet) { for (const warning of loaded.warnings) io.stderr.write(`warning: ${warning}\n`); }
  return await work(pruned(loaded, values.prune));
}
