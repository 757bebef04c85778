// Runs one kernel on the GPU over host arrays: what every kernel test and the bench build on.

import type { Gpu } from "../../lib/gpu/mod.ts";
import { createRecorder, createTimer, type GpuAllocation, readBuffer } from "../../lib/gpu/mod.ts";
import type { Kernel } from "../../wgsl/kernel.ts";

/** Host data of one binding. */
export type HostArray = Float32Array | Uint32Array | Uint16Array | Int32Array | Uint8Array;

/** Packs parameter values as the kernel's uniform block has them. */
export function packParameters(kernel: Kernel, values: Readonly<Record<string, number>>): ArrayBuffer {
  const buffer = new ArrayBuffer(Math.max(16, Math.ceil(kernel.parameters.length / 4) * 16));
  const view = new DataView(buffer);
  kernel.parameters.forEach(([name, type], i) => {
    const value = values[name];
    if (value === undefined) throw new TypeError(`Kernel ${kernel.name}: parameter ${name} has no value`);
    if (type === "u32") view.setUint32(i * 4, value, true);
    else view.setFloat32(i * 4, value, true);
  });
  return buffer;
}

/** What {@linkcode runKernel} returns. */
export interface KernelRun {
  /** Content of every `write` binding after the run, as bytes. */
  readonly outputs: Record<string, ArrayBuffer>;
  /** Shortest time of one run in ms, when timed. */
  readonly milliseconds: number;
}

/** Larger outputs are no tables that a kernel reads again. */
const RESTORED_BYTES = 64 * 2 ** 20;

/** Options of {@linkcode runKernel}. */
export interface RunOptions {
  /** Runs this often in one submit, with timestamps, and reports the shortest time. Default: one untimed run. */
  readonly repeat?: number;
  /** Cleared before every timed run, so that nothing of the inputs is left in a cache. */
  readonly flush?: GPUBuffer;
  /** Uses this grid instead of the kernel's own. */
  readonly grid?: readonly [number, number, number];
}

/** Runs a kernel over host arrays; `write` bindings are uploaded too (poison them to find unwritten outputs). */
export async function runKernel(
  gpu: Gpu,
  kernel: Kernel,
  parameters: Readonly<Record<string, number>>,
  data: Readonly<Record<string, HostArray>>,
  options: RunOptions = {},
): Promise<KernelRun> {
  const { device } = gpu;
  const held: GpuAllocation[] = [];
  const upload = async (label: string, bytes: ArrayBuffer | HostArray, usage: number): Promise<GPUBuffer> => {
    const view = bytes instanceof ArrayBuffer
      ? new Uint8Array(bytes)
      : new Uint8Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength);
    const padded = new Uint8Array(Math.ceil(view.byteLength / 4) * 4);
    padded.set(view);
    const allocation = await gpu.memory.allocate({
      label,
      owner: "test",
      size: padded.byteLength,
      usage: usage | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
    });
    held.push(allocation);
    device.queue.writeBuffer(allocation.buffer, 0, padded);
    return allocation.buffer;
  };
  try {
    const uniform = await upload("params", packParameters(kernel, parameters), GPUBufferUsage.UNIFORM);
    const buffers: GPUBuffer[] = [];
    for (const binding of kernel.bindings) {
      const array = data[binding.name];
      if (!array) throw new TypeError(`Kernel ${kernel.name}: binding ${binding.name} has no data`);
      buffers.push(await upload(binding.name, array, GPUBufferUsage.STORAGE));
    }
    const { pipeline, layout } = await gpu.pipelines.compile({
      name: kernel.name,
      code: kernel.code,
      access: kernel.bindings.map((b) => b.access),
    });
    const bindings = device.createBindGroup({
      layout,
      entries: [uniform, ...buffers].map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
    const grid = options.grid ?? kernel.grid(parameters);
    let milliseconds = NaN;
    const repeat = options.repeat ?? 0;
    if (repeat > 0) {
      // All runs in one submit: between submits a card goes idle and lowers its clock. The first ones warm it up.
      const timer = await createTimer(gpu, repeat);
      const recorder = createRecorder(gpu, timer);
      // A kernel that changes its tables (a sampler ends a sequence) finds them as they were.
      const changed = kernel.bindings.flatMap(({ access }, i) =>
        access === "write" && buffers[i].size <= RESTORED_BYTES ? [buffers[i]] : []
      );
      const before: GPUBuffer[] = [];
      for (const buffer of changed) {
        const copy = await upload("before", new Uint8Array(buffer.size), GPUBufferUsage.STORAGE);
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(buffer, 0, copy, 0, buffer.size);
        device.queue.submit([encoder.finish()]);
        before.push(copy);
      }
      for (let i = 0; i < repeat; i++) {
        changed.forEach((buffer, k) =>
          recorder.encoder().copyBufferToBuffer(before[k], 0, buffer, 0, buffer.size)
        );
        if (options.flush) recorder.encoder().clearBuffer(options.flush);
        recorder.dispatch(String(i), pipeline, bindings, grid);
      }
      device.queue.submit([recorder.finish()]);
      milliseconds = Math.min(...(await timer.read()).map((time) => time.milliseconds));
      timer.dispose();
    } else {
      const recorder = createRecorder(gpu);
      recorder.dispatch(kernel.name, pipeline, bindings, grid);
      device.queue.submit([recorder.finish()]);
    }
    const outputs: Record<string, ArrayBuffer> = {};
    for (const [i, binding] of kernel.bindings.entries()) {
      if (binding.access !== "write") continue;
      const bytes = data[binding.name].byteLength;
      const content = await readBuffer(gpu, buffers[i], 0, Math.ceil(bytes / 4) * 4);
      outputs[binding.name] = content.slice(0, bytes);
    }
    return { outputs, milliseconds };
  } finally {
    for (const allocation of held) allocation.release();
  }
}
