// Weights with random content on the GPU, and the same in f64 for an oracle.

import type { Gpu } from "../../lib/gpu/mod.ts";
import { createWeightStore, type Weight, type WeightStore } from "../../lib/graph/mod.ts";
import { randomArray } from "./kernel_case.ts";

/** A store and what is in it. */
export interface RandomWeights extends Disposable {
  readonly store: WeightStore;
  /** Elements of a weight, row-major. */
  values(weight: Weight): Float64Array;
}

/** Writes random numbers in [-1, 1) to f32 weights. */
export async function randomWeights(gpu: Gpu, weights: readonly Weight[]): Promise<RandomWeights> {
  const store = createWeightStore(gpu);
  const content = new Map<Weight, Float64Array>();
  for (const [seed, weight] of weights.entries()) {
    const data = randomArray(weight.rows * weight.columns, seed + 1) as Float32Array<ArrayBuffer>;
    content.set(weight, Float64Array.from(data));
    await store.allocate(weight);
    store.write(weight, 0, new Uint8Array(data.buffer));
  }
  return {
    store,
    values: (weight) => content.get(weight)!,
    [Symbol.dispose]: () => store.release(),
  };
}
