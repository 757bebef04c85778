// The device and the weights of a loaded model.

import type { Gpu } from "../gpu/mod.ts";
import { FREED, type WeightStore } from "../graph/mod.ts";
import type { PipelineModel } from "../layers/mod.ts";

/**
 * The weights of a loaded model.
 *
 * @throws {Error} when the model was only described, or disposed of.
 */
export function storeOf(model: PipelineModel): WeightStore {
  if (!model.store) {
    throw new Error("The model was only described, its weights are not on the GPU: load it with loadModel");
  }
  if (model.store.freed) throw new Error(FREED);
  return model.store;
}

/**
 * The device of a loaded model.
 *
 * @throws {Error} when the model was only described, or disposed of.
 */
export function gpuOf(model: PipelineModel): Gpu {
  return storeOf(model).gpu;
}
