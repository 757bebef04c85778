// A plan bound to buffers: bind groups made once, replayed per step.

import type { Gpu, GpuAllocation, Pipeline, Recorder } from "../gpu/mod.ts";
import type { Grid } from "../../wgsl/kernel.ts";
import type { Dispatch } from "./dispatch.ts";
import type { Plan } from "./plan.ts";
import { withSlices } from "./row_slices.ts";
import { type Counts, placementOf, type Value } from "./value.ts";
import type { WeightStore } from "./weight_store.ts";

/** Buffers for values, shared by the plans of one run: they never run at the same time. */
export interface Workspace {
  /** Grows the buffers so that a plan with these slots fits. Plans bound before must be bound again when it grew. */
  fit(slots: readonly number[]): Promise<void>;
  /** The buffer of slot i, ranked by size. */
  buffer(rank: number): GPUBuffer;
  /** Bytes allocated. */
  readonly bytes: number;
  /** Frees the buffers. */
  release(): void;
}

/** Makes an empty workspace. */
export function createWorkspace(gpu: Gpu): Workspace {
  let held: GpuAllocation[] = [];
  return {
    async fit(slots: readonly number[]): Promise<void> {
      const sizes = [...slots].sort((a, b) => b - a);
      for (const [i, size] of sizes.entries()) {
        if (held[i] && held[i].size >= size) continue;
        held[i]?.release();
        held[i] = await gpu.memory.allocate({
          label: `activations ${i}`,
          owner: "activations",
          size,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        });
      }
    },
    buffer: (rank) => held[rank].buffer,
    get bytes() {
      return held.reduce((sum, allocation) => sum + allocation.size, 0);
    },
    release(): void {
      for (const allocation of held) allocation.release();
      held = [];
    },
  };
}

/** What a plan is bound to. */
export interface Bindings {
  /** The model's weights. */
  readonly weights: WeightStore;
  /** Buffers for values, already fit for the plan. */
  readonly workspace: Workspace;
  /** The named buffers from outside: tables, caches, constants. */
  readonly resource: (name: string) => GPUBuffer;
}

/** A plan ready to be replayed. */
export interface BoundPlan {
  /** The plan. */
  readonly plan: Plan;
  /** Bytes of the uniform arena. */
  readonly bytes: number;
  /** Sets the sizes of the next submit. */
  setCounts(counts: Counts): void;
  /** Records the kernel calls of these segments with the sizes last set. */
  record(recorder: Recorder, segments: readonly string[]): void;
  /** Buffer, column offset and stride of a result. */
  result(name: string): { buffer: GPUBuffer; offset: number; stride: number };
  /** Frees the uniform arena. */
  release(): void;
}

interface Call {
  readonly dispatch: Dispatch;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  grid: Grid;
}

/** Compiles a plan's kernels, in parallel; one pipeline a kernel call. */
export function compilePlan(gpu: Gpu, plan: Plan): Promise<Pipeline[]> {
  return Promise.all(
    plan.dispatches.map(({ kernel: { name, code, bindings } }) =>
      gpu.pipelines.compile({ name, code, access: bindings.map(({ access }) => access) })
    ),
  );
}

/** Binds a plan: compiles its kernels, allocates the uniform arena and makes the bind groups. */
export async function bindPlan(gpu: Gpu, plan: Plan, bindings: Bindings): Promise<BoundPlan> {
  const { device } = gpu;
  const align = Math.max(16, gpu.limits.minUniformBufferOffsetAlignment);
  const offsets: number[] = [];
  let arenaBytes = 0;
  for (const { kernel } of plan.dispatches) {
    offsets.push(arenaBytes);
    arenaBytes += Math.ceil(Math.max(16, kernel.parameters.length * 4) / align) * align;
  }
  const arena = await gpu.memory.allocate({
    label: "parameters",
    owner: "activations",
    size: arenaBytes,
    usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  });
  try {
    const ranks = rankSlots(plan.memory.slots);
    const offsetOf = (value: Value): number => {
      const { firstRow, stride } = placementOf(value);
      return firstRow * stride * 4;
    };
    const bufferOf = (value: Value): GPUBuffer =>
      bindings.workspace.buffer(ranks[plan.memory.slotOf.get(placementOf(value).root.id)!]);
    const compiled = await compilePlan(gpu, plan);
    const calls: Call[] = plan.dispatches.map((dispatch, i) => {
      const size = Math.max(16, Math.ceil(dispatch.kernel.parameters.length / 4) * 16);
      const entries: GPUBindGroupEntry[] = [
        { binding: 0, resource: { buffer: arena.buffer, offset: offsets[i], size } },
        ...dispatch.operands.map((operand, binding) => ({
          binding: binding + 1,
          resource: {
            buffer: operand.type === "value"
              ? bufferOf(operand.value)
              : operand.type === "weight"
              ? bindings.weights.buffer(operand.weight, operand.part)
              : bindings.resource(operand.name),
            ...(operand.type === "value" ? { offset: offsetOf(operand.value) } : {}),
          },
        })),
      ];
      const { pipeline, layout } = compiled[i];
      return { dispatch, pipeline, group: device.createBindGroup({ layout, entries }), grid: [0, 0, 0] };
    });
    const host = new ArrayBuffer(arena.size);
    const view = new DataView(host);
    return {
      plan,
      bytes: arena.size,
      setCounts(given: Counts): void {
        const counts = withSlices(given, plan.rowSlices);
        calls.forEach((call, i) => {
          const { kernel } = call.dispatch;
          const parameters = call.dispatch.parameters(counts);
          kernel.parameters.forEach(([name, type], k) => {
            const value = parameters[name];
            if (value === undefined) {
              throw new TypeError(`Kernel ${kernel.name}: parameter ${name} has no value`);
            }
            if (type === "u32") view.setUint32(offsets[i] + k * 4, value, true);
            else view.setFloat32(offsets[i] + k * 4, value, true);
          });
          call.grid = kernel.grid(parameters);
        });
        device.queue.writeBuffer(arena.buffer, 0, host);
      },
      record(recorder: Recorder, segments: readonly string[]): void {
        for (const { dispatch, pipeline, group, grid } of calls) {
          if (segments.includes(dispatch.segment)) {
            recorder.dispatch(dispatch.kernel.name, pipeline, group, grid);
          }
        }
      },
      result(name: string) {
        const value = plan.results[name];
        const { offset, stride } = placementOf(value);
        return { buffer: bufferOf(value), offset, stride };
      },
      release: () => arena.release(),
    };
  } catch (error) {
    arena.release();
    throw error;
  }
}

/** Rank by size of each slot, largest first, so that plans share the workspace's buffers. */
function rankSlots(slots: readonly number[]): number[] {
  const order = slots.map((bytes, index) => ({ bytes, index })).sort((a, b) =>
    b.bytes - a.bytes || a.index - b.index
  );
  const ranks: number[] = [];
  order.forEach(({ index }, rank) => ranks[index] = rank);
  return ranks;
}
