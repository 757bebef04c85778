// One table of cases for correctness and speed: each kernel family lists its cases, the tests check them against an
// f64 oracle and the bench times them beside their ceiling.

import { assert } from "@std/assert";
import { type Gpu, openGpu } from "../../lib/gpu/mod.ts";
import type { Kernel } from "../../wgsl/kernel.ts";
import { type HostArray, runKernel } from "./run_kernel.ts";

/** The variant axes every kernel is checked along. */
export interface Variant {
  /** Storage type of weights and caches. */
  readonly dtype: "f16" | "f32";
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
}

/** All four variants. */
export const VARIANTS: readonly Variant[] = [
  { dtype: "f32", subgroups: false },
  { dtype: "f32", subgroups: true },
  { dtype: "f16", subgroups: false },
  { dtype: "f16", subgroups: true },
];

/** One call of one kernel with its expected outputs. */
export interface KernelCase {
  /** Kernel family, for example `matmul`. */
  readonly family: string;
  /** What is special about the case, for example `rows 1, k 7, n 33`. */
  readonly name: string;
  /** The kernel. */
  readonly kernel: Kernel;
  /** Its parameters. */
  readonly parameters: Readonly<Record<string, number>>;
  /** Host data of all bindings; made when needed, the same each time. */
  readonly data: () => Record<string, HostArray>;
  /** Expected content of (some of) the write bindings, computed in f64. Integers are compared exactly. */
  readonly expected: (data: Record<string, HostArray>) => Record<string, Float64Array | Uint32Array>;
  /** Largest allowed |out - expected| / (max |expected| of the output). */
  readonly tolerance: number;
  /** Storage type of float outputs. Default: f32. */
  readonly outputType?: Readonly<Record<string, "f16" | "f32">>;
  /** Floating point operations and bytes moved at the least, for the bench. */
  readonly work: { readonly flops: number; readonly bytes: number };
}

const gpus = new Map<string, Promise<Gpu>>();
const open: Gpu[] = [];

// A device's memory is free again before the tests of the next file begin.
addEventListener("unload", () => {
  for (const gpu of open) gpu[Symbol.dispose]();
});

/** Opens (once) the device of a variant axis; closed when the tests of a file have ended. */
export function sharedGpu(options: { withoutSubgroups?: boolean } = {}): Promise<Gpu> {
  const key = JSON.stringify(options);
  let gpu = gpus.get(key);
  if (!gpu) {
    gpu = openGpu(options);
    gpu.then((one) => open.push(one), () => {});
    gpus.set(key, gpu);
  }
  return gpu;
}

/** Deterministic numbers in [-1, 1), the same on every machine. */
export function randomArray(length: number, seed: number, scale = 1): Float32Array {
  const out = new Float32Array(length);
  let state = (seed * 2654435761 + 12345) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x45d9f3b) >>> 0;
    mixed = (mixed ^ (mixed >>> 16)) >>> 0;
    out[i] = scale * (mixed / 2 ** 31 - 1);
  }
  return out;
}

/** An array in its storage type, as a kernel binding takes it. */
export function store(values: Float32Array, dtype: "f16" | "f32"): HostArray {
  if (dtype === "f32") return values;
  return new Uint16Array(new Float16Array(values).buffer);
}

/** A stored array widened back to f64, so that an oracle sees exactly what the kernel sees. */
export function widen(stored: HostArray): Float64Array {
  if (stored instanceof Uint16Array) {
    return Float64Array.from(
      new Float16Array(stored.buffer as ArrayBuffer, stored.byteOffset, stored.length),
    );
  }
  return Float64Array.from(stored as Float32Array);
}

/** Runs a case and compares with its oracle; throws with the worst element. */
export async function checkCase(gpu: Gpu, test: KernelCase): Promise<void> {
  const data = test.data();
  const expected = test.expected(data);
  const run = await runKernel(gpu, test.kernel, test.parameters, data);
  for (const [name, want] of Object.entries(expected)) {
    const bytes = run.outputs[name];
    assert(bytes, `${test.kernel.name} (${test.name}): no output ${name}`);
    if (want instanceof Uint32Array) {
      const got = new Uint32Array(bytes);
      want.forEach((value, i) =>
        assert(
          got[i] === value,
          `${test.kernel.name} (${test.name}): ${name}[${i}] is ${got[i]}, expected ${value}`,
        )
      );
      continue;
    }
    const got = test.outputType?.[name] === "f16"
      ? Float64Array.from(new Float16Array(bytes))
      : Float64Array.from(new Float32Array(bytes));
    let largest = 0;
    for (const value of want) {
      if (Math.abs(value) > largest && Math.abs(value) < Infinity) largest = Math.abs(value);
    }
    const scale = largest || 1;
    let worst = 0;
    let at = 0;
    want.forEach((value, i) => {
      const error = value === got[i] ? 0 : Math.abs(got[i] - value) / scale;
      // NaN is never smaller than anything.
      if (!(error <= worst)) worst = Number.isNaN(error) ? Infinity : error, at = i;
    });
    assert(
      worst <= test.tolerance,
      `${test.kernel.name} (${test.name}): ${name}[${at}] is ${got[at]}, expected ${want[at]}; ` +
        `error ${worst.toExponential(2)} of the largest value is over ${test.tolerance}`,
    );
  }
}
