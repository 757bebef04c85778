// The device a model is on.

import type { Gpu } from "../gpu/mod.ts";
import { FREED } from "../graph/mod.ts";
import type { PipelineModel } from "../layers/mod.ts";

/**
 * The device of a loaded model.
 *
 * @throws {Error} when the model was only described, or disposed of.
 */
export function gpuOf(model: PipelineModel): Gpu {
  if (!model.store) {
    throw new Error("The model was only described, its weights are not on the GPU: load it with loadModel");
  }
  if (model.store.freed) throw new Error(FREED);
  return model.store.gpu;
}
