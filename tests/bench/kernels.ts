// Every kernel beside its ceiling, over the table of cases that the tests check.

import type { Gpu } from "../../lib/gpu/mod.ts";
import type { KernelCase, Variant } from "../harness/kernel_case.ts";
import { runKernel } from "../harness/run_kernel.ts";
import * as attention from "../wgsl/attention_cases.ts";
import * as columnScores from "../wgsl/column_scores_cases.ts";
import * as compaction from "../wgsl/compaction_cases.ts";
import * as eviction from "../wgsl/eviction_cases.ts";
import * as linear from "../wgsl/linear_cases.ts";
import * as sampling from "../wgsl/sampling_cases.ts";
import * as selection from "../wgsl/selection_cases.ts";
import type { Ceilings } from "./ceilings.ts";
import { markdownTable, short } from "./table.ts";

const FAMILIES = [linear, attention, sampling, selection, columnScores, compaction, eviction];

/** Cases of a device: shapes of real models on a GPU, the tests' small ones on a CPU driver. */
function casesFor(gpu: Gpu, variant: Variant, all: boolean): KernelCase[] {
  const list = FAMILIES.flatMap((family) =>
    gpu.adapter.isFallback ? family.cases(variant) : family.bench(variant)
  );
  if (all) return list;
  // Of several decisions for one matvec, the chosen one comes first.
  const seen = new Set<string>();
  return list.filter(({ family, name }) => {
    if (family !== "matvec") return true;
    const key = `${family} ${name}`;
    return seen.has(key) ? false : Boolean(seen.add(key));
  });
}

/** Enough runs to keep the device busy for a tenth of a second, so that it is at its full clock in the end. */
function repeats(gpu: Gpu, { work }: KernelCase, ceilings: Ceilings): number {
  if (gpu.adapter.isFallback) return 2;
  const flush = 2.6e8 / ceilings.bytesPerSecond;
  const floor = Math.max(work.bytes / ceilings.bytesPerSecond, work.flops / ceilings.flopsPerSecond);
  return Math.max(5, Math.min(500, Math.ceil(0.1 / (flush + 3 * floor))));
}

/** Options of {@linkcode benchKernels}. */
export interface BenchKernelsOptions {
  /** Only families whose name contains this. */
  readonly filter?: string;
  /** All decisions, not only the chosen ones. */
  readonly all?: boolean;
}

/** Times every case and returns a Markdown table. */
export async function benchKernels(
  gpu: Gpu,
  ceilings: Ceilings,
  options: BenchKernelsOptions,
): Promise<string> {
  const variant: Variant = { dtype: gpu.features.f16 ? "f16" : "f32", subgroups: gpu.features.subgroups };
  // Larger than the second-level cache of any card.
  const flush = gpu.adapter.isFallback ? undefined : await gpu.memory.allocate({
    label: "flush",
    owner: "bench",
    size: 256 * 2 ** 20,
    usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.STORAGE,
  });
  const rows: (string | number)[][] = [];
  try {
    for (const test of casesFor(gpu, variant, options.all ?? false)) {
      if (options.filter && !test.family.includes(options.filter)) continue;
      const data = test.data();
      const run = await runKernel(gpu, test.kernel, test.parameters, data, {
        repeat: repeats(gpu, test, ceilings),
        ...(flush ? { flush: flush.buffer } : {}),
      });
      const seconds = run.milliseconds / 1000;
      const floor = Math.max(
        test.work.bytes / ceilings.bytesPerSecond,
        test.work.flops / ceilings.flopsPerSecond,
      );
      rows.push([
        test.kernel.name,
        test.name.length > 90 ? `${test.name.slice(0, 90)}…` : test.name,
        short(run.milliseconds * 1000),
        short(test.work.bytes / seconds / 1e9),
        short(test.work.flops / seconds / 1e9),
        `${(floor / seconds * 100).toFixed(0)} %`,
      ]);
    }
  } finally {
    flush?.release();
  }
  return markdownTable(["kernel", "case", "µs", "GB/s", "GFLOP/s", "of its ceiling"], rows);
}
