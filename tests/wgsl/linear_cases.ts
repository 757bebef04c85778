// All cases of the linear family: matvec, matmul and the kernels around them.

import type { KernelCase, Variant } from "../harness/kernel_case.ts";
import { matmulBench, matmulCases, matvecBench, matvecCases } from "./linear_matmul_cases.ts";
import { rowBench, rowCases } from "./linear_row_cases.ts";

/** Correctness cases of a variant. */
export function cases(variant: Variant): KernelCase[] {
  return [
    ...rowCases(variant),
    ...matvecCases(variant),
    // matmul has no subgroup operations: once a storage type.
    ...(variant.subgroups ? matmulCases(variant) : []),
  ];
}

/** Large shapes of real models, for a GPU. */
export function bench(variant: Variant): KernelCase[] {
  return [...rowBench(variant), ...matvecBench(variant), ...matmulBench(variant)];
}
