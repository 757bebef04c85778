// How much attention the note that is asked for gets: from the row that answers, and from the rows that some policies go by.

import type { AttentionMaps } from "./host_llama.ts";
import { textTable } from "./svg.ts";

/** What the keys of a note get in one layer. */
export interface NoteAttention {
  /** Keys that the row sees. */
  readonly keys: number;
  /** Tokens of the note among them. */
  readonly noteTokens: number;
  /** Of the row that answers, a mean over heads. */
  readonly answer: Attended;
  /** Of the row that answers, in the head that pays the note most. */
  readonly bestHead: Attended;
  /** Of the newest fifth of the rows before the question, a mean over rows and heads: without knowing what is asked. */
  readonly recent: Attended;
}

/** What a row pays some keys. */
export interface Attended {
  /** Place of the most attended one of them among all keys; 1 is the first. */
  readonly rank: number;
  /** Share of the attention. */
  readonly mass: number;
}

/** Token indexes from `first` to before `end`. */
export interface Span {
  readonly first: number;
  readonly end: number;
}

function attended(weights: ArrayLike<number>, { first, end }: Span): Attended {
  let [mass, most] = [0, 0];
  for (let key = first; key < end; key++) {
    mass += weights[key];
    most = Math.max(most, weights[key]);
  }
  const all = Array.from(weights);
  return {
    rank: 1 + all.filter((weight) => weight > most).length,
    mass: mass / all.reduce((a, b) => a + b, 0),
  };
}

/** By layer: the attention of a prompt whose question begins at token `question` to the note at `note`. */
export function noteAttention(
  { layers, lastRow }: AttentionMaps,
  note: Span,
  question: number,
): NoteAttention[] {
  const keys = lastRow[0][0].length;
  const recentRows = Math.max(1, Math.floor(question / 5));
  return layers.map((map, layer) => {
    const recent = new Float64Array(question);
    for (let row = question - recentRows; row < question; row++) {
      for (let key = 0; key <= row; key++) recent[key] += map[row * keys + key] / recentRows;
    }
    const heads = lastRow[layer].map((weights) => attended(weights, note));
    return {
      keys,
      noteTokens: note.end - note.first,
      answer: attended(map.subarray((keys - 1) * keys), note),
      bestHead: heads.reduce((a, b) => b.mass > a.mass ? b : a),
      recent: attended(recent, note),
    };
  });
}

/** The value in the middle, or between the two there. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  return (sorted[Math.floor(half)] + sorted[Math.ceil(half) - 1]) / 2;
}

/** Medians over prompts, a row a layer: rank of the note's most attended token, and mass of the note. */
export function attentionTable(prompts: readonly (readonly NoteAttention[])[]): string {
  const firsts = prompts.map(([first]) => first);
  const of = (value: (one: NoteAttention) => number) => median(firsts.map(value));
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  const kinds = ["answer", "bestHead", "recent"] as const;
  const rows = prompts[0].map((_, layer) => [
    `layer ${layer}`,
    ...kinds.flatMap((kind) => {
      const all = prompts.map((layers) => layers[layer][kind]);
      return [
        median(all.map(({ rank }) => rank)).toFixed(0),
        percent(median(all.map(({ mass }) => mass))),
      ];
    }),
  ]);
  const heads = ["", "answer row", "mass", "its best head", "mass", "newest fifth", "mass"];
  return `Attention to the note that is asked for, medians over ${prompts.length} prompts of ` +
    `${of(({ keys }) => keys)} keys: rank of its most attended token,\n` +
    `and mass of its ${of(({ noteTokens }) => noteTokens)} tokens, which is ` +
    `${
      percent(of(({ noteTokens, keys }) => noteTokens / keys))
    } by chance. The newest fifth of the rows before the ` +
    `question knows nothing of it.\n${textTable([heads, ...rows])}`;
}
