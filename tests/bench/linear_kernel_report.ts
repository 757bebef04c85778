// What was measured of the kernels of linear attention alone.

import { csv } from "../../examples/svg.ts";
import type { Ceilings } from "./ceilings.ts";
import { type Comparison, crossoverText } from "./crossover.ts";
import { type KernelCell, SLICE_ROWS } from "./linear_kernels.ts";
import { chart, lengthText, LINEAR, linesOf, MARKS, type Section, SOFTMAX } from "./linear_section.ts";
import { markdownTable, short } from "./table.ts";

/** Cells of one way of feeding; what fits a slice is in one piece either way. */
function fed(cells: readonly KernelCell[], whole: boolean): KernelCell[] {
  return cells.filter((cell) => cell.whole === whole || cell.length <= SLICE_ROWS);
}

/** Cells of a linear core with those of softmax attention that they are compared with. */
type Pairs = readonly { readonly cell: KernelCell; readonly other: KernelCell }[];

function comparisons(pairs: Pairs, ms: (cell: KernelCell) => number): Comparison[] {
  return pairs.map(({ cell, other }) => ({ length: cell.length, ours: ms(cell), theirs: ms(other) }));
}

const alone = ({ ms }: KernelCell) => ms;
const together = ({ ms, besideMs }: KernelCell) => ms + besideMs;

/** Milliseconds of the passes, in their order. */
function passesText({ core, passes }: KernelCell): string {
  if (core === SOFTMAX) return "–";
  return ["States", "Scan", "Output"].map((pass) =>
    short(sum(passes.filter(({ name }) => name.startsWith(`linearChunk${pass}`)).map((p) => p.milliseconds)))
  ).join(" / ");
}

/** Kernels by length. */
export function kernelSection(cells: readonly KernelCell[], ceilings: Ceilings): Section {
  const softmax = (cell: KernelCell) =>
    cells.find(({ core, shape, whole, length }) =>
      core === SOFTMAX && shape === cell.shape && whole === cell.whole && length === cell.length
    );
  const gain = (cell: KernelCell, ms: (cell: KernelCell) => number) => {
    const other = softmax(cell);
    return short(other ? ms(other) / ms(cell) : NaN);
  };
  const rows = cells.map((cell) => [
    cell.shape,
    cell.core,
    cell.length,
    cell.length <= SLICE_ROWS ? "one slice" : cell.whole ? "whole" : `slices of ${SLICE_ROWS}`,
    short(cell.ms),
    passesText(cell),
    short(cell.besideMs),
    short(cell.flops / cell.ms / 1e9),
    `${(cell.flops / cell.ms * 1000 / ceilings.flopsPerSecond * 100).toFixed(0)} %`,
    gain(cell, alone),
    gain(cell, together),
  ]);
  const facts: string[] = [];
  const files: Record<string, string> = {};
  for (const shape of new Set(cells.map((cell) => cell.shape))) {
    const own = cells.filter((cell) => cell.shape === shape);
    for (const whole of own.some((cell) => cell.whole) ? [false, true] : [false]) {
      const how = whole ? "in one piece" : "in slices";
      const way = fed(own, whole);
      for (const core of LINEAR) {
        const pairs = way.filter((cell) => cell.core === core).flatMap((cell) => {
          const other = softmax(cell);
          return other ? [{ cell, other }] : [];
        });
        if (pairs.length === 0) continue;
        const times = comparisons(pairs, alone);
        const all = crossoverText(comparisons(pairs, together));
        facts.push(
          `- ${shape}, ${core}, ${how}: ${crossoverText(times)}${
            markText(times)
          }; with what stands before it ${all}`,
        );
      }
      const name = `kernels-${shape.split(":")[0].replaceAll(" ", "-")}-${whole ? "whole" : "slices"}.svg`;
      const lines = linesOf(way, ({ length, ms }) => [length, ms]);
      files[name] = chart(`Attention of one layer, ${shape}, ${how}`, ["tokens", "ms"], lines);
    }
  }
  const table = markdownTable(
    [
      "heads",
      "core",
      "tokens",
      "fed",
      "ms",
      "states / scan / output",
      "before it",
      "TFLOP/s",
      "of f32",
      "gain",
      "gain with it",
    ],
    rows,
  );
  return {
    text:
      '### Kernels alone\n\nAttention of one layer over a whole prompt, by timestamps. "Before it": feature maps, or ' +
      "rotating and storing keys and values. Operations are counted without what a mask hides.\n\n" +
      [table, facts.join("\n")].join("\n\n"),
    files: {
      ...files,
      "kernels.csv": csv([
        ["heads", "core", "tokens", "whole", "ms", "before ms", "operations"],
        ...cells.map((c) => [c.shape, c.core, c.length, String(c.whole), c.ms, c.besideMs, c.flops]),
      ]),
    },
  };
}

/** Whether ours are faster at every length from the mark on. */
function markText(points: readonly Comparison[]): string {
  const long = points.filter(({ length }) => length >= MARKS.kernels);
  if (long.length === 0) return "";
  const met = long.every(({ ours, theirs }) => ours < theirs);
  return ` (mark: from ${lengthText(MARKS.kernels)} on, ${met ? "met" : "missed"})`;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, number) => all + number, 0);
}
