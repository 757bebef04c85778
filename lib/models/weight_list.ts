// The weights of an architecture while they are described: each with the tensors that are stacked in it.

import type { StorageType } from "../../wgsl/kernel.ts";
import type { Weight, WeightView } from "../layers/mod.ts";
import type { TensorSource, WeightSource } from "./architecture.ts";

/** Weights described so far. */
export interface WeightList {
  /** In the order in which they are loaded. */
  readonly sources: readonly WeightSource[];
  /** A matrix in the model's storage type: tensors [rows, columns] stacked by rows. */
  matrix(name: string, columns: number, tensors: readonly TensorSource[]): Weight;
  /** A row of f32: norms, biases, vectors; tensors stand one behind the other. */
  row(name: string, tensors: readonly TensorSource[]): Weight;
  /** A weight of f32 whose content is made from a tensor at load. */
  made(name: string, rows: number, columns: number, tensor: TensorSource): Weight;
}

/** Begins a list. */
export function weightList(dtype: StorageType): WeightList {
  const sources: WeightSource[] = [];
  const add = (weight: Weight, tensors: readonly TensorSource[]): Weight => {
    sources.push({ weight, tensors });
    return weight;
  };
  const sum = (tensors: readonly TensorSource[], of: (shape: readonly number[]) => number): number =>
    tensors.reduce((total, { shape }) => total + of(shape), 0);
  return {
    sources,
    matrix: (name, columns, tensors) =>
      add({ name, rows: sum(tensors, ([rows]) => rows), columns, dtype }, tensors),
    row: (name, tensors) =>
      add(
        { name, rows: 1, columns: sum(tensors, (shape) => shape.reduce((a, b) => a * b, 1)), dtype: "f32" },
        tensors,
      ),
    made: (name, rows, columns, tensor) => add({ name, rows, columns, dtype: "f32" }, [tensor]),
  };
}

/** A tensor of one name. */
export function tensorOf(name: string, ...shape: number[]): TensorSource {
  return { names: [name], shape };
}

/** Consecutive ranges of a weight's rows, or of the numbers of a row, of these lengths. */
export function ranges(weight: Weight, lengths: readonly number[]): WeightView[] {
  let first = 0;
  return lengths.map((rows) => ({ weight, first: (first += rows) - rows, rows }));
}
