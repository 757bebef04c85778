// Typed reads of stored weights and caches as WGSL text: storage is f16 or f32, arithmetic is f32.

import type { StorageType } from "./kernel.ts";

/** Binding type of stored numbers read one at a time. */
export function scalarArray(dtype: StorageType): string {
  return `array<${dtype}>`;
}

/** Binding type of stored numbers read four at a time. */
export function vectorArray(dtype: StorageType): string {
  return `array<vec4<${dtype}>>`;
}

/** Expression for element `index` of `array` (of {@linkcode scalarArray}) as f32. */
export function loadScalar(dtype: StorageType, array: string, index: string): string {
  return dtype === "f32" ? `${array}[${index}]` : `f32(${array}[${index}])`;
}

/** Expression for vector `index` (element `4 * index`) of `array` (of {@linkcode vectorArray}) as `vec4<f32>`. */
export function loadVector(dtype: StorageType, array: string, index: string): string {
  return dtype === "f32" ? `${array}[${index}]` : `vec4<f32>(${array}[${index}])`;
}
