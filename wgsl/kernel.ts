// What a kernel is: WGSL text with its bindings, its parameters and its grid. Knows no device and no model.

/** Element type in which weights and caches are stored. Sums are always f32. */
export type StorageType = "f16" | "f32";

/** Type of one per-call number in a kernel's uniform block. */
export type ParameterType = "u32" | "f32";

/** A storage buffer of a kernel: `read` is `var<storage, read>`, `write` is `var<storage, read_write>`. */
export interface Binding {
  /** Name of the WGSL variable. */
  readonly name: string;
  /** WGSL type, for example `array<vec4<f32>>`. */
  readonly type: string;
  /** How the kernel uses it. */
  readonly access: "read" | "write";
}

/** Number of workgroups in x, y and z. */
export type Grid = readonly [number, number, number];

/** Per-call numbers of a kernel, by name. */
export type Parameters = Readonly<Record<string, number>>;

/**
 * One compute kernel: everything compiled in is in `code` (and so in the pipeline cache's key); everything that changes
 * from call to call is a parameter. Binding 0 is the uniform block `params`, the storage bindings follow from 1 on.
 */
export interface Kernel {
  /** Readable variant name, for plans and timings. */
  readonly name: string;
  /** WGSL source with the entry point `main`. */
  readonly code: string;
  /** Storage bindings, in order from binding 1. */
  readonly bindings: readonly Binding[];
  /** Names and types of the uniform block's members, in order, 4 bytes each. */
  readonly parameters: readonly (readonly [string, ParameterType])[];
  /** Workgroups for a call with these parameters. */
  readonly grid: (parameters: Parameters) => Grid;
}

/** What {@linkcode defineKernel} takes: the declarations are generated, the body is written by hand. */
export interface KernelSource {
  /** Readable variant name. */
  readonly name: string;
  /** Whether the body uses f16. */
  readonly f16?: boolean;
  /** Uniform block members in order. */
  readonly parameters: Readonly<Record<string, ParameterType>>;
  /** Storage bindings in order. */
  readonly bindings: readonly Binding[];
  /** Workgroups for a call. */
  readonly grid: (parameters: Parameters) => Grid;
  /** WGSL below the declarations, with `fn main`. */
  readonly body: string;
}

/** Puts the declarations of a kernel's parameters and bindings before its body. */
export function defineKernel(source: KernelSource): Kernel {
  const parameters = Object.entries(source.parameters);
  const members = parameters.map(([name, type]) => `  ${name}: ${type},`).join("\n");
  const declarations = source.bindings.map(({ name, type, access }, i) =>
    `@group(0) @binding(${i + 1}) var<storage, ${
      access === "read" ? "read" : "read_write"
    }> ${name}: ${type};`
  ).join("\n");
  const code = `${source.f16 ? "enable f16;\n" : ""}struct Params {
${members}
}
@group(0) @binding(0) var<uniform> params: Params;
${declarations}
${source.body}`;
  return { name: source.name, code, bindings: source.bindings, parameters, grid: source.grid };
}

/** Binding helper: a buffer the kernel only reads. */
export function read(name: string, type: string): Binding {
  return { name, type, access: "read" };
}

/** Binding helper: a buffer the kernel writes (and may read). */
export function write(name: string, type: string): Binding {
  return { name, type, access: "write" };
}

/** Largest number of workgroups in one dimension that every WebGPU device allows. */
export const MAX_WORKGROUPS = 65535;

/**
 * Folds `count` workgroups of one dimension into x and y. In WGSL the flat index is
 * `group.x + group.y * groups.x` with `@builtin(num_workgroups) groups`; the last row may overshoot `count`.
 */
export function foldGrid(count: number): readonly [number, number] {
  if (count <= MAX_WORKGROUPS) return [Math.max(count, 1), 1];
  const rows = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / rows), rows];
}

/** Unrolls: joins `piece(0) … piece(count - 1)` by line breaks. Kernels use it where naga would bound a loop. */
export function unroll(count: number, piece: (index: number) => string): string {
  return Array.from({ length: count }, (_, i) => piece(i)).join("\n");
}
