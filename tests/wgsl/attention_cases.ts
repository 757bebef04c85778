// All cases of the attention family.

import type { KernelCase, Variant } from "../harness/kernel_case.ts";
import { cacheBench, cacheCases } from "./attention_cache_cases.ts";
import { decodeBench, decodeCases } from "./attention_decode_cases.ts";
import { prefillBench, prefillCases } from "./attention_prefill_cases.ts";

/** Cases for the tests. */
export function cases(variant: Variant): KernelCase[] {
  return [...cacheCases(variant), ...decodeCases(variant), ...prefillCases(variant)];
}

/** Large shapes for the bench. */
export function bench(variant: Variant): KernelCase[] {
  return [...cacheBench(variant), ...decodeBench(variant), ...prefillBench(variant)];
}
