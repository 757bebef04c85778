// Kernel calls of a plan: a kernel, what is bound to it, and its numbers as functions of the step's sizes.

import type { Kernel, Parameters } from "../../wgsl/kernel.ts";
import { type Counts, placementOf, type Value } from "./value.ts";
import type { Weight } from "./weight.ts";

/** What a binding of a kernel call is. */
export type Operand =
  | { readonly type: "value"; readonly value: Value }
  | { readonly type: "weight"; readonly weight: Weight; readonly part: number }
  | { readonly type: "resource"; readonly name: string };

/** One kernel call of a plan. */
export interface Dispatch {
  /** The kernel. */
  readonly kernel: Kernel;
  /** What is bound, in the order of the kernel's bindings. */
  readonly operands: readonly Operand[];
  /** The uniform block's numbers for a step of these sizes. */
  readonly parameters: (counts: Counts) => Parameters;
  /** Kind of the operation it came from. */
  readonly operation: string;
  /** Part of the plan. */
  readonly segment: string;
}

/** The buffer of a value (of its root, when it is a view). */
export function valueOperand(value: Value): Operand {
  return { type: "value", value };
}

/**
 * The buffer of a value that a kernel takes for rows that stand side by side.
 *
 * @throws {TypeError} when the value is a range of columns of a wider one.
 */
export function denseOperand(value: Value): Operand {
  const { root, stride } = placementOf(value);
  if (stride !== value.width) {
    throw new TypeError(
      `${value.name} is ${value.width} of the ${stride} columns of ${root.name}: only attention and gated products take such ranges`,
    );
  }
  return { type: "value", value };
}

/** A part of a weight. */
export function weightOperand(weight: Weight, part = 0): Operand {
  return { type: "weight", weight, part };
}

/** A named buffer from outside the plan: a table, a cache arena, a constant. */
export function resource(name: string): Operand {
  return { type: "resource", name };
}
