// Reductions over a workgroup as WGSL text, with and without subgroup operations.
//
// With subgroups: every subgroup reduces its lanes, lane 0 leaves the partial result in workgroup memory, and every
// invocation combines the partials in order. Without: `size` values are reduced to about sqrt(size) columns, then
// every invocation combines the columns in order. Both take two or three barriers, where a tree takes log2(size).

import { unroll } from "./kernel.ts";

/** What {@linkcode workgroupReduce} generates. */
export interface WorkgroupReduce {
  /** Name of the generated WGSL function; its workgroup memory is called `NAMEPartials`. */
  readonly name: string;
  /** Invocations of the workgroup, a power of two from 1 to 256. */
  readonly size: number;
  /** How two values are combined. */
  readonly operation: "add" | "max";
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
  /** Type of the values. Default: f32. Vectors are reduced by component. */
  readonly type?: "f32" | "u32" | "vec2<f32>" | "vec4<f32>";
}

/**
 * Declarations and the function `fn NAME(value: T, local: u32) -> T`, or with subgroups
 * `fn NAME(value: T, local: u32, lane: u32, subgroupSize: u32) -> T`; write the call with
 * {@linkcode reduceArguments}. All invocations call it in uniform control flow, all get the reduction, bit for bit
 * the same. It may be called any number of times: it begins with a barrier, so that a call never overtakes the one
 * before it.
 */
export function workgroupReduce(spec: WorkgroupReduce): string {
  const { name, size, operation, subgroups, type = "f32" } = spec;
  const partials = `${name}Partials`;
  const combine = (a: string, b: string): string => operation === "add" ? `${a} + ${b}` : `max(${a}, ${b})`;
  if (subgroups) {
    const reduce = operation === "add" ? "subgroupAdd" : "subgroupMax";
    // Subgroups hold at least 4 invocations.
    return `var<workgroup> ${partials}: array<${type}, ${Math.max(size / 4, 1)}>;
fn ${name}(value: ${type}, local: u32, lane: u32, subgroupSize: u32) -> ${type} {
  let partial = ${reduce}(value);
  if (subgroupSize >= ${size}u) { return partial; }
  workgroupBarrier();
  if (lane == 0u) { ${partials}[local / subgroupSize] = partial; }
  workgroupBarrier();
  var total = ${partials}[0];
  for (var i = 1u; i < ${size}u / subgroupSize; i++) { total = ${combine("total", `${partials}[i]`)}; }
  return total;
}
`;
  }
  const columns = 2 ** Math.floor(Math.log2(size) / 2);
  return `var<workgroup> ${partials}: array<${type}, ${size}>;
fn ${name}(value: ${type}, local: u32) -> ${type} {
  workgroupBarrier();
  ${partials}[local] = value;
  workgroupBarrier();
  if (local < ${columns}u) {
    var column = value;
    ${
    unroll(size / columns - 1, (i) =>
      `column = ${combine("column", `${partials}[local + ${(i + 1) * columns}u]`)};`)
  }
    ${partials}[local] = column;
  }
  workgroupBarrier();
  var total = ${partials}[0];
  ${unroll(columns - 1, (i) => `total = ${combine("total", `${partials}[${i + 1}u]`)};`)}
  return total;
}
`;
}

/** Entry-point parameters (to append after others) that a reduction needs: `lane` and `subgroupSize`, or nothing. */
export function reduceInputs(subgroups: boolean): string {
  return subgroups
    ? ", @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) subgroupSize: u32"
    : "";
}

/** Arguments of a reduction call after the value, given the entry point of {@linkcode reduceInputs}. */
export function reduceArguments(subgroups: boolean): string {
  return subgroups ? "local, lane, subgroupSize" : "local";
}
