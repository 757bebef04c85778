// The files that examples/kv_quality.ts writes: tables and pictures.

import { type HeatMap, heatMaps } from "./heat_map.ts";
import { median, type NoteAttention } from "./note_attention.ts";
import type { NotePrompt } from "./notes_text.ts";
import { writeText } from "./options.ts";
import type { Outcome } from "./quality_comparisons.ts";
import {
  afterwardsOf,
  agreementOf,
  type Answers,
  insideOf,
  lossOf,
  lossText,
  mean,
  type Measured,
  PARTS,
  percent,
  type Quality,
} from "./quality_measures.ts";
import { csv, lineChart } from "./svg.ts";

/** All that was measured. */
export interface Results {
  readonly prompts: readonly NotePrompt[];
  /** Budgets, from large to small. */
  readonly keeps: readonly number[];
  readonly full: Quality;
  /** By policy and budget. */
  readonly measured: ReadonlyMap<string, ReadonlyMap<number, Quality>>;
  readonly outcomes: readonly Outcome[];
  /** By prompt and layer. */
  readonly attention: readonly (readonly NoteAttention[])[];
  /** Tokens that were scored in all, and tokens whose choice was compared. */
  readonly scoredTokens: number;
  readonly greedyTokens: number;
}

/** Writes tables and pictures. */
export function writeFiles(folder: string, results: Results): void {
  const { prompts, keeps, full, measured, outcomes, attention, scoredTokens, greedyTokens } = results;
  const share = (answers: Measured<Answers>) => "reason" in answers ? undefined : answers.held;
  const numbersOf = (quality: Quality) => [
    prompts.length,
    insideOf(quality),
    share(quality.inside),
    afterwardsOf(quality),
    share(quality.afterwards),
    scoredTokens,
    lossOf(quality),
    greedyTokens,
    agreementOf(quality),
    ...PARTS.map((part) => {
      const result = quality[part];
      return "reason" in result ? result.reason : undefined;
    }),
  ];
  const heads = [
    ...["prompts", "inside", "inside_held", "afterwards", "afterwards_held"],
    ...["scored_tokens", "loss", "greedy_tokens", "agreement"],
    ...PARTS.map((part) => `${part}_refused`),
  ];
  const rows = [["full", new Map([[1, full]])] as const, ...measured];
  const each = rows.flatMap(([name, row]) => [...row].map(([keep, quality]) => ({ name, keep, quality })));
  const qualities = each.map(({ name, keep, quality }) => [name, keep, ...numbersOf(quality)]);
  writeText(folder, "quality.csv", csv([["policy", "keep", ...heads], ...qualities]));
  const compared = outcomes.map(({ group, setting, keep, held, inEffect, quality }) => [
    ...[group, setting, keep, String(held), inEffect],
    ...numbersOf(quality),
  ]);
  writeText(
    folder,
    "ablations.csv",
    csv([["comparison", "setting", "keep", "held", "in_effect", ...heads], ...compared]),
  );
  const asked = ["inside", "afterwards"] as const;
  const answers = each.flatMap(({ name, keep, quality }) =>
    asked.flatMap((how) => {
      const given = quality[how];
      if ("reason" in given) return [];
      return given.texts.map((text, i) => {
        const { tokens, depth, answer } = prompts[i];
        return [name, keep, how, tokens, depth, answer, text, Number(given.right[i])];
      });
    })
  );
  const answerHeads = ["policy", "keep", "asked", "tokens", "depth", "answer", "text", "right"];
  writeText(folder, "answers.csv", csv([answerHeads, ...answers]));
  const lines = (value: (quality: Quality) => number | undefined) => [
    { name: "full cache", points: keeps.map((keep) => [keep, value(full)] as const), faint: true },
    ...[...measured].map(([name, row]) => ({
      name,
      points: [...row].map(([keep, quality]) => [keep, value(quality)] as const),
      faint: name === "random",
    })),
  ];
  const axes = { xTitle: "share of the full KV cache", xTicks: [...keeps].reverse(), xText: String };
  const shares = { yRange: [0, 1] as const, yText: percent };
  const classes = [...new Set(prompts.map(({ tokens }) => tokens))].join(", ");
  const ofPrompts = `of ${prompts.length} prompts of ${classes} tokens`;
  const charts = [
    ["notes", "Notes found again, the question in the prompt", ofPrompts, shares, insideOf],
    ["afterwards", "Notes found again, asked in a second turn", ofPrompts, shares, afterwardsOf],
    ["loss", "Loss of a continuation after a pruned prompt", "nats a token", { yText: lossText }, lossOf],
    [
      "agreement",
      "The full cache's tokens, chosen after them",
      `of ${greedyTokens} greedy tokens`,
      { yText: percent },
      agreementOf,
    ],
  ] as const;
  for (const [name, title, yTitle, range, of] of charts) {
    writeText(folder, `${name}.svg`, lineChart({ ...axes, title, yTitle, ...range }, lines(of)));
  }
  for (const how of asked) writeText(folder, `heat_${how}.svg`, heatMapsOf(how, results));
  if (attention.length > 0) writeAttention(folder, attention);
}

/** Heat maps of the notes found, by the prompt's length and the note's depth. */
function heatMapsOf(
  how: "inside" | "afterwards",
  { prompts, keeps, full, measured }: Results,
): string {
  const unique = (values: readonly number[]) => [...new Set(values)].sort((a, b) => a - b);
  const [lengths, depths] = [
    unique(prompts.map(({ tokens }) => tokens)),
    unique(prompts.map(({ depth }) => depth)),
  ];
  const mapOf = (quality: Quality): HeatMap | undefined => {
    const given = quality[how];
    if ("reason" in given) return undefined;
    return lengths.map((length) =>
      depths.map((at) => {
        const hits = given.right.filter((_, i) => prompts[i].tokens === length && prompts[i].depth === at);
        return hits.length > 0 ? mean(hits.map(Number)) : undefined;
      })
    );
  };
  return heatMaps({
    title: how === "inside"
      ? "Notes found again, the question in the prompt"
      : "Notes found again, asked in a second turn, after the notes were pruned",
    note: "Each map: rows are lengths of the prompt in tokens, columns the depth of the note, 0 the oldest",
    columns: keeps.map((keep) => `keep ${keep}`),
    rows: [
      { name: "full cache", maps: [mapOf(full)] },
      ...[...measured].map(([name, row]) => ({ name, maps: keeps.map((keep) => mapOf(row.get(keep)!)) })),
    ],
    mapRows: lengths.map(String),
    mapColumns: depths.map((depth) => String(Number(depth.toFixed(2)))),
  });
}

/** What the note gets of the attention, layer by layer, as a table and a picture. */
function writeAttention(folder: string, attention: Results["attention"]): void {
  const kinds = ["answer", "bestHead", "recent"] as const;
  writeText(
    folder,
    "attention.csv",
    csv([
      [
        "prompt",
        "layer",
        "keys",
        "note_tokens",
        ...kinds.flatMap((kind) => [`${kind}_rank`, `${kind}_mass`]),
      ],
      ...attention.flatMap((layers, prompt) =>
        layers.map((one, layer) => [
          ...[prompt, layer, one.keys, one.noteTokens],
          ...kinds.flatMap((kind) => [one[kind].rank, one[kind].mass]),
        ])
      ),
    ]),
  );
  const layers = attention[0].map((_, layer) => layer);
  const line = (name: string, value: (one: NoteAttention) => number, faint = false) => ({
    name,
    points: layers.map((layer) => [layer, median(attention.map((all) => value(all[layer])))] as const),
    faint,
  });
  const names = { answer: "answer row", bestHead: "answer row, its best head", recent: "newest fifth" };
  writeText(
    folder,
    "attention.svg",
    lineChart({
      title: "The note that is asked for: attention it gets, and its rank",
      xTitle: "layer",
      xTicks: layers,
      xText: String,
      yTitle: `medians of ${attention.length} prompts`,
      yRange: [0, 1],
      yText: percent,
    }, [
      ...kinds.map((kind) => line(`${names[kind]}: mass`, (one) => one[kind].mass)),
      ...kinds.map((kind) =>
        line(`${names[kind]}: rank, of the keys`, (one) => (one[kind].rank - 1) / one.keys)
      ),
      line("mass by chance", ({ noteTokens, keys }) => noteTokens / keys, true),
    ]),
  );
}
