// Kernel calls of nothing, for tests of what stands around them.

import type { Dispatch, Operand, Rows, Value } from "../../lib/graph/mod.ts";
import type { Kernel } from "../../wgsl/kernel.ts";

/** Rows of some name and capacity. */
export function rowsOf(name: string, capacity: number): Rows {
  return { name, capacity, thin: false };
}

/** A kernel without code. */
export function fakeKernel(name: string, bindings = 0): Kernel {
  return {
    name,
    code: "",
    bindings: Array.from(
      { length: bindings },
      (_, i) => ({ name: `b${i}`, type: "array<f32>", access: "write" }),
    ),
    parameters: [],
    grid: () => [1, 1, 1],
  };
}

/** A kernel call that touches some values. */
export function fakeDispatch(values: readonly Value[], segment = "body"): Dispatch {
  return {
    kernel: fakeKernel("fake", values.length),
    operands: values.map((value): Operand => ({ type: "value", value })),
    parameters: () => ({}),
    operation: "fake",
    segment,
  };
}
