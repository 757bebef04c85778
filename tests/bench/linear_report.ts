// What was measured of whole models with linear attention: ratios and crossovers beside the times.

import { csv } from "../../examples/svg.ts";
import { formatBytes } from "../../lib/gpu/mod.ts";
import { type Comparison, crossoverText } from "./crossover.ts";
import type { DecodeCell } from "./linear_decode.ts";
import { CORES } from "./linear_models.ts";
import type { PrefillCell } from "./linear_prefill.ts";
import { chart, lengthText, linesOf, MARKS, type Section, SOFTMAX } from "./linear_section.ts";
import { markdownTable, short } from "./table.ts";

function ratioText(
  { from, to, most }: { readonly from: number; readonly to: number; readonly most: number },
  first: { readonly length: number; readonly ms: number },
  last: { readonly length: number; readonly ms: number },
): string {
  const ratio = last.ms / first.ms;
  const text = `${lengthText(last.length)} / ${lengthText(first.length)}: ${ratio.toFixed(3)}`;
  if (first.length !== from || last.length !== to) return text;
  return `${text} (mark: at most ${most}, ${ratio <= most ? "met" : "missed"})`;
}

/** Decode by position. */
export function decodeSection(model: string, cells: readonly DecodeCell[]): Section {
  const softmaxMs = (position: number) =>
    cells.find((cell) => cell.core === SOFTMAX && cell.position === position)?.ms ?? NaN;
  const rows = cells.map(({ core, position, ms, coreMs, cacheBytes, bytes }) => [
    core,
    position,
    short(ms),
    short(1000 / ms),
    short(softmaxMs(position) / ms),
    short(coreMs),
    formatBytes(cacheBytes),
    formatBytes(bytes),
  ]);
  const ratios = CORES.flatMap(({ name }) => {
    const own = cells.filter(({ core }) => core === name)
      .map(({ position, ...cell }) => ({ ...cell, length: position }));
    if (own.length < 2) return [];
    const [first, last] = [own[0], own.at(-1)!];
    const ratio = name === SOFTMAX
      ? `${lengthText(last.length)} / ${lengthText(first.length)}: ${(last.ms / first.ms).toFixed(3)}`
      : ratioText(MARKS.decode, first, last);
    const same = own.every(({ bytes }) => bytes === first.bytes);
    return [
      `- ${name}: time of a step, ${ratio}; bytes allocated ${same ? "the same" : "differ"} by position`,
    ];
  });
  const table = markdownTable(
    ["core", "position", "ms a token", "tokens/s", "gain", "core ms", "cache and state", "allocated"],
    rows,
  );
  const lines = linesOf(cells, ({ position, ms }) => [position, ms]);
  return {
    text: `### Decode, ${model}\n\nOne sequence; caches and states as after a prompt of that length. ` +
      `"Core" is what stands between the projections, by timestamps; "allocated" is all but the weights.\n\n` +
      [table, ratios.join("\n")].join("\n\n"),
    files: {
      "decode.csv": csv([
        ["model", "core", "position", "ms", "core ms", "cache bytes", "allocated bytes"],
        ...cells.map((c) => [model, c.core, c.position, c.ms, known(c.coreMs), c.cacheBytes, c.bytes]),
      ]),
      ...(lines.length
        ? { "decode.svg": chart(`Time of a token, ${model}`, ["position", "ms"], lines) }
        : {}),
    },
  };
}

/** Prefill by length. */
export function prefillSection(model: string, cells: readonly PrefillCell[]): Section {
  const softmaxMs = (length: number) =>
    cells.find((cell) => cell.core === SOFTMAX && cell.length === length)?.ms ?? NaN;
  const rows = cells.map(({ core, length, ms }) => [
    core,
    length,
    short(ms),
    short(length / ms * 1000),
    short(softmaxMs(length) / ms),
  ]);
  const facts = CORES.flatMap(({ name }) => {
    const own = cells.filter(({ core }) => core === name);
    if (own.length < 2) return [];
    const [before, last] = own.slice(-2);
    if (name === SOFTMAX) {
      return [
        `- ${name}: ${lengthText(last.length)} / ${lengthText(before.length)}: ${
          (last.ms / before.ms).toFixed(3)
        }`,
      ];
    }
    const points = own.flatMap(({ length, ms }): Comparison[] =>
      Number.isNaN(softmaxMs(length)) ? [] : [{ length, ours: ms, theirs: softmaxMs(length) }]
    );
    return [`- ${name}: ${ratioText(MARKS.prefill, before, last)}; ${crossoverText(points)}`];
  });
  const lines = linesOf(cells, ({ length, ms }) => [length, ms]);
  return {
    text: `### Prefill, ${model}\n\nTime to the first token of one prompt.\n\n` + [
      markdownTable(["core", "tokens", "ms", "tokens/s", "gain"], rows),
      facts.join("\n"),
    ].join("\n\n"),
    files: {
      "prefill.csv": csv([
        ["model", "core", "tokens", "ms"],
        ...cells.map(({ core, length, ms }) => [model, core, length, ms]),
      ]),
      ...(lines.length
        ? { "prefill.svg": chart(`Time of a prompt, ${model}`, ["tokens", "ms"], lines) }
        : {}),
    },
  };
}

/** What CSV leaves empty where it is not known. */
function known(value: number): number | undefined {
  return Number.isNaN(value) ? undefined : value;
}
