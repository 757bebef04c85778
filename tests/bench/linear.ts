// Linear attention beside softmax attention, of one model in one run: decode by position, prefill by length, and the kernels
// alone.

import { join } from "@std/path";
import { formatBytes, type Gpu } from "../../lib/gpu/mod.ts";
import { createBudget, tell } from "./budget.ts";
import type { Ceilings } from "./ceilings.ts";
import { decodeCells, decodeContext } from "./linear_decode.ts";
import { kernelSection } from "./linear_kernel_report.ts";
import { kernelCells } from "./linear_kernels.ts";
import { CORES, MODELS, shapedModel, TINY } from "./linear_models.ts";
import { prefillCells } from "./linear_prefill.ts";
import { decodeSection, prefillSection } from "./linear_report.ts";
import type { Section } from "./linear_section.ts";

/** Parts of the comparison. */
export const LINEAR_PARTS = ["kernels", "decode", "prefill"] as const;

/** Options of {@linkcode benchLinear}. */
export interface BenchLinearOptions {
  /** Ceilings of the device. */
  readonly ceilings: Ceilings;
  /** Shape of the model. Default: Llama-3.2-1B, on a CPU driver a tiny one. */
  readonly model?: string;
  /** Only these cores, by name. Default: all. */
  readonly cores?: readonly string[];
  /** Only this part. Default: all. */
  readonly part?: string;
  /** Longest position and prompt. Default: 65536, on a CPU driver 256. */
  readonly longest?: number;
  /** Seconds after which cells are left out. Default: 420. */
  readonly seconds?: number;
  /** Folder for pictures and CSV. Default: none are written. */
  readonly out?: string;
}

/** Numbers from `first` on by a factor, up to `last`. */
function powers(first: number, last: number, factor: number): number[] {
  const numbers: number[] = [];
  for (let number = first; number <= last; number *= factor) numbers.push(number);
  return numbers;
}

/** Lengths that are measured. */
function lengthsUpTo(longest: number, fallback: boolean) {
  const [short, kernels] = fallback ? [longest / 4, longest] : [1024, Math.min(longest, 16384)];
  return {
    decode: powers(short, longest, 4),
    prefill: powers(short, longest, 2),
    // Up to 32 rows are taken one by one.
    kernels: powers(fallback ? Math.max(64, short) : 512, kernels, 2),
    steps: fallback ? 2 : 16,
  };
}

function checkOptions({ model, cores = [], part, longest, seconds }: BenchLinearOptions): void {
  for (const core of cores) {
    if (CORES.some(({ name }) => name === core)) continue;
    throw new RangeError(`There is no core ${core}: choose of ${CORES.map(({ name }) => name).join(", ")}`);
  }
  if (model !== undefined && !MODELS.includes(model)) {
    throw new RangeError(`There is no shape ${model}: choose one of ${MODELS.join(", ")}`);
  }
  if (part !== undefined && !LINEAR_PARTS.some((known) => known === part)) {
    throw new RangeError(`There is no part ${part}: choose one of ${LINEAR_PARTS.join(", ")}`);
  }
  if (longest !== undefined && !(Number.isInteger(longest) && longest >= 64 && longest % 4 === 0)) {
    throw new RangeError(`longest must be a multiple of 4 of at least 64: current value is ${longest}`);
  }
  if (seconds !== undefined && !(seconds > 0)) {
    throw new RangeError(`budget-seconds must be more than 0: current value is ${seconds}`);
  }
}

/**
 * Runs the comparison and returns Markdown.
 *
 * @throws {RangeError} when an option is out of its range.
 */
export async function benchLinear(gpu: Gpu, options: BenchLinearOptions): Promise<string> {
  checkOptions(options);
  const fallback = gpu.adapter.isFallback;
  const { ceilings, out, part } = options;
  const { model: name = fallback ? TINY : MODELS[0], longest = fallback ? 256 : 65536 } = options;
  const lengths = lengthsUpTo(longest, fallback);
  const budget = createBudget(options.seconds ?? 420);
  const wanted = (one: string) => part === undefined || part === one;
  const cores = CORES.filter(({ name }) => options.cores?.includes(name) ?? true);
  const sections: Section[] = [];
  const notes: string[] = [];
  if (wanted("kernels")) {
    if (gpu.features.timestamps) {
      sections.push(kernelSection(await kernelCells(gpu, cores, lengths.kernels, budget), ceilings));
    } else notes.push("This device has no timestamps: kernels alone are not timed.");
  }
  if (wanted("decode") || wanted("prefill")) {
    using model = await shapedModel(gpu, name, decodeContext(longest, lengths.steps));
    tell(`${name}: ${formatBytes(model.store!.bytes)} of weights`);
    if (wanted("decode")) {
      const cells = await decodeCells(model, cores, lengths.decode, lengths.steps, budget);
      sections.push(decodeSection(name, cells));
    }
    if (wanted("prefill")) {
      sections.push(prefillSection(name, await prefillCells(model, cores, lengths.prefill, budget)));
    }
  }
  if (budget.leftOut.length) {
    notes.push(
      `Left out, as they did not fit the budget of time (one cell may take a quarter): ${
        budget.leftOut.join("; ")
      }.`,
    );
  }
  if (out !== undefined) {
    await Deno.mkdir(out, { recursive: true });
    for (const [file, content] of sections.flatMap(({ files }) => Object.entries(files))) {
      await Deno.writeTextFile(join(out, file), content);
    }
  }
  return [...sections.map(({ text }) => text), ...notes].join("\n\n");
}
