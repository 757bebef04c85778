// The two ceilings of a device, measured by kernels: bytes copied a second, and f32 multiply-adds a second.

import type { Gpu } from "../../lib/gpu/mod.ts";
import { defineKernel, read, unroll, write } from "../../wgsl/kernel.ts";
import { runKernel } from "../harness/run_kernel.ts";

/** What a device can do at the most. */
export interface Ceilings {
  /** Bytes read and written a second by a copy. */
  readonly bytesPerSecond: number;
  /** f32 operations a second by chains of multiply-adds. */
  readonly flopsPerSecond: number;
}

const COPY = defineKernel({
  name: "copy",
  parameters: { count: "u32" },
  bindings: [read("x", "array<vec4<f32>>"), write("out", "array<vec4<f32>>")],
  grid: ({ count }) => [Math.min(65535, Math.ceil(count / 1024)), 1, 1],
  // Each invocation has four independent loads in flight.
  body: `@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = group.x * 1024u + local;
  ${unroll(4, (i) => `let v${i} = x[at + ${i * 256}u];`)}
  ${unroll(4, (i) => `out[at + ${i * 256}u] = v${i};`)}
}`,
});

const CHAINS = 8;
const STEPS = 64;

const MULTIPLY_ADD = defineKernel({
  name: "multiplyAdd",
  parameters: { rounds: "u32" },
  bindings: [write("out", "array<vec4<f32>>")],
  grid: () => [2048, 1, 1],
  body: `@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let a = vec4f(f32(id.x) * 1e-9 + 0.5);
  ${unroll(CHAINS, (i) => `var s${i} = vec4f(${i}.0);`)}
  for (var i = 0u; i < params.rounds; i++) {
    ${unroll(STEPS, () => Array.from({ length: CHAINS }, (_, i) => `s${i} = fma(s${i}, a, a);`).join(" "))}
  }
  out[id.x] = ${Array.from({ length: CHAINS }, (_, i) => `s${i}`).join(" + ")};
}`,
});

/** Measures both ceilings; on a CPU driver with small sizes. */
export async function measureCeilings(gpu: Gpu): Promise<Ceilings> {
  const slow = gpu.adapter.isFallback;
  const bytes = (slow ? 16 : 256) * 2 ** 20;
  const data = { x: new Float32Array(bytes / 4), out: new Float32Array(bytes / 4) };
  const copy = await runKernel(gpu, COPY, { count: bytes / 16 }, data, { repeat: slow ? 3 : 200 });
  const rounds = slow ? 1 : 64;
  const out = new Float32Array(2048 * 256 * 4);
  const chains = await runKernel(gpu, MULTIPLY_ADD, { rounds }, { out }, { repeat: slow ? 2 : 20 });
  return {
    bytesPerSecond: 2 * bytes / copy.milliseconds * 1000,
    flopsPerSecond: 2048 * 256 * 4 * CHAINS * STEPS * rounds * 2 / chains.milliseconds * 1000,
  };
}
