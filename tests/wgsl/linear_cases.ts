// All cases of the linear family: matvec, matmul and the kernels around them.

import type { KernelCase, Variant } from "../harness/kernel_case.ts";
import { matmulBench, matmulCases, matvecBench, matvecCases } from "./linear_matmul_cases.ts";
import { rowBench, rowCases } from "./linear_row_cases.ts";
import { reduceBench, reduceCases, splitBench, splitCases } from "./linear_split_cases.ts";

/** Correctness cases of a variant. */
export function cases(variant: Variant): KernelCase[] {
  return [
    ...rowCases(variant),
    ...matvecCases(variant),
    // matmul has no subgroup operations: once a storage type.
    ...(variant.subgroups ? [...matmulCases(variant), ...splitCases(variant)] : []),
    ...(variant.subgroups && variant.dtype === "f32" ? reduceCases() : []),
  ];
}

/** Large shapes of real models, for a GPU. */
export function bench(variant: Variant): KernelCase[] {
  return [
    ...rowBench(variant),
    ...matvecBench(variant),
    ...matmulBench(variant),
    ...splitBench(variant),
    ...reduceBench(),
  ];
}
