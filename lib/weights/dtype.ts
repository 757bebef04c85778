// The element types that a safetensors header may name.

/** An element type of the safetensors format. Only those of `FloatDtype` can be read. */
export type Dtype =
  | "BOOL"
  | ("F4" | "F6_E2M3" | "F6_E3M2")
  | ("F8_E4M3" | "F8_E4M3FNUZ" | "F8_E5M2" | "F8_E5M2FNUZ" | "F8_E8M0")
  | ("F16" | "BF16" | "F32" | "F64" | "C64")
  | ("I8" | "I16" | "I32" | "I64")
  | ("U8" | "U16" | "U32" | "U64");

/** Bits an element; types under a byte are packed. */
const BITS: Record<Dtype, number> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F8_E4M3: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2: 8,
  F8_E5M2FNUZ: 8,
  F8_E8M0: 8,
  F16: 16,
  BF16: 16,
  F32: 32,
  F64: 64,
  C64: 64,
  I8: 8,
  I16: 16,
  I32: 32,
  I64: 64,
  U8: 8,
  U16: 16,
  U32: 32,
  U64: 64,
};

/** The element types that tensors can be read from. */
export type FloatDtype = "F32" | "F16" | "BF16";

/** Names of all element types of the format. */
export const DTYPES: readonly Dtype[] = Object.keys(BITS) as Dtype[];

/** Names of the element types that tensors can be read from. */
export const FLOAT_DTYPES: readonly FloatDtype[] = ["F32", "F16", "BF16"];

/** Whether a value names an element type of the format. */
export function isDtype(value: unknown): value is Dtype {
  return typeof value === "string" && Object.hasOwn(BITS, value);
}

/** Whether tensors of this element type can be read. */
export function isFloatDtype(dtype: Dtype): dtype is FloatDtype {
  return (FLOAT_DTYPES as readonly Dtype[]).includes(dtype);
}

/** Bits of one element. */
export function dtypeBits(dtype: Dtype): number {
  return BITS[dtype];
}
