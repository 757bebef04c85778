// Opens the GPU and loads a model, telling what is worth knowing.

import { describeModel, formatBytes, type Gpu, loadModel, type Model, openGpu } from "../../mod.ts";
import type { Swap } from "./check.ts";
import { modelDirectory } from "./files.ts";
import type { Values } from "./flags.ts";
import { idleCardWarning } from "./graphics_card.ts";
import type { Io } from "./io.ts";
import { linearized, requireSuited } from "./linear.ts";
import { pruned } from "./prune.ts";
import { statusLine } from "./status_line.ts";
import { warnOfModel } from "./warnings.ts";

/** Tells of a graphics card that lies idle. */
export async function warnIdleCard(io: Io, gpu: Gpu): Promise<void> {
  if (!gpu.adapter.isFallback) return;
  const card = await io.graphicsCard();
  if (card) io.stderr.write(`warning: ${idleCardWarning(card, gpu.adapter.description)}\n`);
}

/** Refuses linear attention that does not suit the model before its weights are loaded. */
async function requireLinear(directory: string, { linear, dtype }: Values): Promise<void> {
  if (!linear) return;
  using described = await describeModel(directory, { dtype });
  requireSuited(described, linear);
}

/**
 * Loads the model that the flags name, with linear attention and pruned as they say, and works with it; frees it and the GPU
 * at the end, however that comes. The work also gets the model before and after linear attention, both unpruned.
 */
export async function withModel<T>(
  io: Io,
  values: Values,
  signal: AbortSignal,
  work: (model: Model, swap: Swap) => Promise<T>,
): Promise<T> {
  const quiet = values.quiet ?? false;
  const directory = await modelDirectory(io, values);
  await requireLinear(directory, values);
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
  const swapped = linearized(loaded, values.linear);
  warnOfModel(io, values, swapped);
  return await work(pruned(swapped, values.prune), { before: loaded, after: swapped });
}
