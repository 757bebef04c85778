// Parts of a report over lengths: Markdown, pictures and CSV, and the marks that linear attention is held to.

import { type Line, lineChart } from "../../examples/svg.ts";
import { CORES } from "./linear_models.ts";
import { short } from "./table.ts";

/** A part of the report: Markdown, and files by name. */
export interface Section {
  readonly text: string;
  readonly files: Readonly<Record<string, string>>;
}

/** Names of the cores: what the others are compared with, and those. */
export const [SOFTMAX, ...LINEAR]: readonly string[] = CORES.map(({ name }) => name);

/** Marks that linear attention is held to on a GPU, at the lengths that they are set for. */
export const MARKS = {
  /** Time of a step at 64k over that at 1k. */
  decode: { from: 1024, to: 65536, most: 1.05 },
  /** Time of a prompt of 64k over one of 32k. */
  prefill: { from: 32768, to: 65536, most: 2.2 },
  /** From this length on its kernels are the faster ones. */
  kernels: 2048,
} as const;

/** 1024 as 1k. */
export function lengthText(length: number): string {
  return length > 0 && length % 1024 === 0 ? `${length / 1024}k` : String(length);
}

/** A chart over lengths, both axes by powers, so that a crossover at short ones is seen. */
export function chart(
  title: string,
  [xTitle, yTitle]: readonly [string, string],
  lines: readonly Line[],
): string {
  const powers = lines.map((line) => ({
    ...line,
    points: line.points.map(([x, y]) => [Math.log2(x), y === undefined ? y : Math.log10(y)] as const),
  }));
  const lengths = powers.flatMap(({ points }) => points.map(([x]) => x));
  const values = powers.flatMap(({ points }) => points.flatMap(([, y]) => y === undefined ? [] : [y]));
  const xTicks = [...new Set(lengths)].sort((a, b) => a - b);
  const yRange = [Math.floor(Math.min(...values)), Math.ceil(Math.max(...values))] as const;
  return lineChart({
    title,
    xTitle,
    yTitle,
    xTicks,
    yRange,
    yText: (y) => short(10 ** y),
    xText: (x) => lengthText(Math.round(2 ** x)),
  }, powers);
}

/** Lines of cells by core; softmax is what the others are compared with. */
export function linesOf<C extends { readonly core: string }>(
  cells: readonly C[],
  point: (cell: C) => readonly [number, number],
): Line[] {
  return CORES.map(({ name }) => ({
    name,
    points: cells.filter(({ core }) => core === name).map(point),
    faint: name === SOFTMAX,
  })).filter(({ points }) => points.length > 0);
}
