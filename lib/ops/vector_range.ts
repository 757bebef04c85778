// Where a kernel that reads four numbers at a time finds a value's columns.

import { placementOf, type Value } from "../graph/mod.ts";

/**
 * Column offset and stride of a value.
 *
 * @throws {TypeError} when they are no multiples of 4.
 */
export function vectorRange(value: Value): { readonly offset: number; readonly stride: number } {
  const { root, offset, stride } = placementOf(value);
  if (offset % 4 !== 0 || stride % 4 !== 0) {
    throw new TypeError(
      `${value.name} begins at column ${offset} of the ${stride} of ${root.name}: both must be multiples of 4`,
    );
  }
  return { offset, stride };
}
