// Replays plans over tables that a test writes: what an engine does, without its policy.

import type { Cache } from "../../lib/cache/mod.ts";
import { createRecorder, type Gpu, type GpuAllocation, readBuffer } from "../../lib/gpu/mod.ts";
import {
  bindPlan,
  type BoundPlan,
  type Counts,
  createWorkspace,
  type Plan,
  type WeightStore,
} from "../../lib/graph/mod.ts";

/** Content of a table that a plan binds by name. */
export type Table = Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>;

/** What plans are run with. */
export interface PlanRunnerSpec {
  /** The weights that the plans name. */
  readonly weights: WeightStore;
  /** Tables by resource name; their sizes are fixed by what stands here. */
  readonly tables: Readonly<Record<string, Table>>;
  /** What the layers keep, if they do. */
  readonly cache?: Cache;
}

/** Plans bound to buffers. */
export interface PlanRunner extends Disposable {
  /** Writes a table from its beginning on. */
  write(table: string, content: Table): void;
  /** Replays segments of a plan (default: all) as one submit. */
  run(plan: Plan, counts: Counts, segments?: readonly string[]): void;
  /** The first rows of a plan's result, without what stands beside it in the buffer. */
  read(plan: Plan, result: string, rows: number): Promise<Float32Array<ArrayBuffer>>;
}

/** Binds plans; values get buffers shared by all of them, constants their content. */
export async function createPlanRunner(
  gpu: Gpu,
  plans: readonly Plan[],
  { weights, tables, cache }: PlanRunnerSpec,
): Promise<PlanRunner> {
  const held: { release(): void }[] = [];
  const buffers = new Map<string, GPUBuffer>(cache?.resources);
  const write = (name: string, content: Table): void =>
    gpu.device.queue.writeBuffer(buffers.get(name)!, 0, content);
  const constants = plans.flatMap((plan) => [...plan.constants]).map(([name, make]) =>
    [name, make()] as const
  );
  for (const [name, content] of [...Object.entries(tables), ...constants]) {
    const allocation: GpuAllocation = await gpu.memory.allocate({
      label: name,
      owner: "test",
      size: content.byteLength,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    held.push(allocation);
    buffers.set(name, allocation.buffer);
    write(name, content as Table);
  }
  const workspace = createWorkspace(gpu);
  held.push(workspace);
  for (const plan of plans) await workspace.fit(plan.memory.slots);
  const bound = new Map<Plan, BoundPlan>();
  for (const plan of plans) {
    const resource = (name: string): GPUBuffer => {
      const buffer = buffers.get(name);
      if (!buffer) throw new Error(`The test gives no table ${name}`);
      return buffer;
    };
    bound.set(plan, await bindPlan(gpu, plan, { weights, workspace, resource }));
    held.push(bound.get(plan)!);
  }
  return {
    write,
    run(plan, counts, segments = [...new Set(plan.dispatches.map(({ segment }) => segment))]): void {
      bound.get(plan)!.setCounts(counts);
      const recorder = createRecorder(gpu);
      bound.get(plan)!.record(recorder, segments);
      gpu.device.queue.submit([recorder.finish()]);
    },
    async read(plan, result, rows): Promise<Float32Array<ArrayBuffer>> {
      const { buffer, offset, stride } = bound.get(plan)!.result(result);
      const { width } = plan.results[result];
      const data = new Float32Array(await readBuffer(gpu, buffer, 0, rows * stride * 4));
      const out = new Float32Array(rows * width);
      for (let i = 0; i < rows; i++) {
        const first = i * stride + offset;
        out.set(data.subarray(first, first + width), i * width);
      }
      return out;
    },
    [Symbol.dispose](): void {
      for (const part of held.reverse()) part.release();
    },
  };
}
