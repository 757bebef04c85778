// The tables of a run on the GPU: how large they are, and their allocation.

import { formatBytes, type Gpu, type GpuAllocation } from "../gpu/mod.ts";
import { type Plan, stagingSlots, storageBytes } from "../graph/mod.ts";
import type { PipelineModel } from "../layers/mod.ts";
import { arenaName, kvArenas, LEFT_LOGIT_ROWS } from "../ops/mod.ts";
import { TILE_ROWS } from "../../wgsl/attention_prefill.ts";
import { ROW_WORDS, SAMPLE_WORDS, SAMPLING_WORDS, STATE_WORDS, TILE_WORDS } from "../../wgsl/tables.ts";
import { MAX_STOP_IDS } from "./options.ts";
import { type DeviceTraits, type Purpose, type RunSizes, stepLimits } from "./plans.ts";
import { mostTiles } from "./tables.ts";

/** Bytes of the tables of a run, with those that its plans ask for. */
export function tableBytes(
  model: PipelineModel,
  purpose: Purpose,
  sizes: RunSizes,
  plans: readonly Plan[],
): Record<string, number> {
  const sequences = sizes.capacities.length;
  const rows = Math.max(sizes.prefillRows, sequences);
  const tables: Record<string, number> = {
    rows: rows * ROW_WORDS * 4,
    spans: sequences * 8,
    tiles: mostTiles(rows, sequences, TILE_ROWS) * TILE_WORDS * 4,
    logitRows: Math.max(sizes.logitRows, sequences) * 4,
    ...(plans.some(({ rowCounts }) => rowCounts.size > 0)
      ? { [LEFT_LOGIT_ROWS]: Math.max(sizes.logitRows, sequences) * 4 }
      : {}),
    states: sequences * STATE_WORDS * 4,
  };
  if (purpose.type === "score") {
    tables.targets = sizes.logitRows * 4;
    tables.nll = sizes.logitRows * 4;
  }
  if (purpose.type === "sample") {
    const { ring, logprobs, edits } = purpose.sampling;
    tables.settings = sequences * SAMPLING_WORDS * 4;
    tables.stopIds = MAX_STOP_IDS * 4;
    tables.forced = ring * 4;
    tables.samples = sequences * ring * SAMPLE_WORDS * 4;
    tables.logSumExps = Math.max(sizes.logitRows, sequences) * 4;
    tables.top = sequences * ring * (logprobs ?? 0) * 8;
    if (edits) {
      tables.counts = sequences * model.config.vocabularySize * 4;
      tables.bias = sequences * model.config.vocabularySize * 4;
    }
  }
  const limits = stepLimits(sizes);
  for (const [name, table] of plans.flatMap((plan) => [...plan.stepTables])) {
    tables[name] = table.words(limits) * 4;
  }
  for (const { target, staging } of plans) {
    for (const [name, arena] of staging) {
      const slots = stagingSlots(limits);
      kvArenas(arena, slots, target.cacheType, target.bindingBytes).forEach(({ heads }, i) => {
        const bytes = heads * slots * arena.headSize * storageBytes(target.cacheType);
        tables[arenaName(name, "keys", i)] = tables[arenaName(name, "values", i)] = bytes;
      });
      tables[`${name}.positions`] = arena.kvHeads * slots * 4;
    }
  }
  return tables;
}

/** Named buffers of a run. */
export interface RunTables {
  /** Bytes allocated here, without the buffers that were handed in. */
  readonly bytes: number;
  /** A buffer by name. */
  buffer(name: string): GPUBuffer;
  /** Frees what was allocated here. */
  release(): void;
}

/**
 * Allocates the tables of a run and the host tables that its plans ask for, which are written at once; names the buffers
 * that exist already beside them.
 *
 * @throws {RangeError} when one is over the device's binding limit.
 */
export async function createRunTables(
  gpu: Gpu,
  sizes: Readonly<Record<string, number>>,
  plans: readonly Plan[],
  existing: ReadonlyMap<string, GPUBuffer>,
  traits: DeviceTraits,
): Promise<RunTables> {
  const held: GpuAllocation[] = [];
  const buffers = new Map(existing);
  const release = () => {
    for (const allocation of held) allocation.release();
    held.length = 0;
  };
  const allocate = async (name: string, size: number): Promise<GPUBuffer> => {
    checkBinding(`the table ${name}`, size, traits);
    const allocation = await gpu.memory.allocate({
      label: name,
      owner: "activations",
      size,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    held.push(allocation);
    buffers.set(name, allocation.buffer);
    return allocation.buffer;
  };
  try {
    for (const [name, size] of Object.entries(sizes)) await allocate(name, size);
    for (const [name, make] of new Map(plans.flatMap((plan) => [...plan.constants]))) {
      const data = make() as Float32Array<ArrayBuffer>;
      gpu.device.queue.writeBuffer(await allocate(name, data.byteLength), 0, data);
    }
  } catch (error) {
    release();
    throw error;
  }
  return {
    bytes: held.reduce((sum, allocation) => sum + allocation.size, 0),
    buffer(name: string): GPUBuffer {
      const buffer = buffers.get(name);
      if (!buffer) throw new Error(`This run has no table ${name}`);
      return buffer;
    },
    release,
  };
}

function checkBinding(what: string, size: number, { bindingBytes }: DeviceTraits): void {
  if (size <= bindingBytes) return;
  throw new RangeError(
    `This run needs ${formatBytes(size)} for ${what}, over this device's binding limit of ` +
      `${formatBytes(bindingBytes)}: use fewer sequences at once or a shorter context`,
  );
}
