// Cases of selectRows, poolScores and spreadBudget.

import { poolScores, type PoolScoresSpec } from "../../wgsl/pool_scores.ts";
import { selectRows, type SelectRowsSpec } from "../../wgsl/select_rows.ts";
import { spreadBudget } from "../../wgsl/spread_budget.ts";
import { ABSENT_INDEX, ROW_WORDS, SELECTION_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, randomArray, type Variant } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import {
  oracleContext,
  oraclePool,
  oracleSelect,
  type OracleSelection,
  oracleSpread,
} from "../oracles/selection.ts";

/** How scores lie. */
export type Scores =
  | "any"
  | "positive"
  | "negative"
  | "equal"
  | "steps"
  | "steep"
  | "zeros"
  | "holes"
  | "heads";

/** A sequence of a step: its context, and what is kept of it. */
export interface Selected {
  readonly context: number;
  readonly keep: number;
  /** Default: 0. */
  readonly sinks?: number;
  /** Default: 3. */
  readonly window?: number;
  /** Default: any. */
  readonly scores?: Scores;
}

interface Placed extends OracleSelection {
  readonly first: number;
  readonly target: number;
  readonly scores: Scores;
}

interface Layout {
  readonly placed: readonly Placed[];
  /** Rows of the layer. */
  readonly rows: number;
  /** Rows of the next one. */
  readonly targets: number;
  readonly stride: number;
}

const POISON = 0xdeadbeef;

/** Sequences in reverse order with room between them, so that no number is another one by chance. */
function layOut(sequences: readonly Selected[]): Layout {
  let rows = 2;
  let targets = 1;
  const placed: Placed[] = [];
  for (const { context, keep, sinks = 0, window = 3, scores = "any" } of sequences.toReversed()) {
    const count = context + window;
    placed.unshift({ first: rows, count, window, sinks, keep, target: targets, scores });
    rows += count + 3;
    // Room for the most rows there could be, whatever the context.
    targets += keep + window + 2;
  }
  return { placed, rows, targets, stride: rows + 5 };
}

function encodeSelections({ placed }: Layout): Uint32Array {
  const table = new Uint32Array(placed.length * SELECTION_WORDS);
  placed.forEach(({ first, count, window, sinks, keep, target }, i) =>
    table.set([first, count, window, 1, sinks, keep, target, POISON], i * SELECTION_WORDS)
  );
  return table;
}

/** Scores of one context. */
function scoresOf(kind: Scores, length: number, seed: number, head: number): Float32Array {
  const random = randomArray(length, seed);
  return random.map((x, i) => {
    switch (kind) {
      case "any":
        return 10 * x;
      case "positive":
        return x + 1;
      case "negative":
        return x - 1;
      case "equal":
        return 0.25;
      case "steps":
        return Math.round(3 * x);
      case "steep":
        return Math.exp(30 * x);
      case "zeros":
        return i % 5 === 3 ? x : i % 2 ? 0 : -0;
      case "holes":
        return i % 3 === 1 ? NaN : x;
      case "heads":
        return Math.round(4 * x) + head % 3;
    }
  });
}

/** Scores by head; those that no one may look at are the highest. */
function scoreTable(layout: Layout, heads: number, seed: number): Float32Array {
  const { placed, stride } = layout;
  const table = new Float32Array(heads * stride).fill(3e38);
  for (let head = 0; head < heads; head++) {
    placed.forEach((selection, s) => {
      const { first, scores } = selection;
      const content = scoresOf(scores, oracleContext(selection), 1000 * seed + 50 * s + head, head);
      table.set(content, head * stride + first);
    });
  }
  return table;
}

function contextScores(scores: HostArray, layout: Layout, sequence: number, head: number): HostArray {
  const selection = layout.placed[sequence];
  const at = head * layout.stride + selection.first;
  return scores.subarray(at, at + oracleContext(selection));
}

function describe(sequences: readonly Selected[]): string {
  return sequences.map(({ context, keep, sinks = 0, window = 3, scores = "any" }) =>
    `${keep} of ${context}+${window} (${sinks} sinks, ${scores})`
  ).join(", ");
}

/** Bytes of the contexts' scores. */
function scoreBytes(layout: Layout, heads: number): number {
  return layout.placed.reduce((sum, selection) => sum + 4 * heads * oracleContext(selection), 0);
}

/** Numbers to keep by head, about the selection's own. */
function countsOf(layout: Layout, heads: number): Uint32Array {
  return Uint32Array.from({ length: layout.placed.length * heads }, (_, i) => {
    const { keep } = layout.placed[Math.floor(i / heads)];
    return [keep, 0, keep + 7, Math.floor(keep / 2)][i % heads % 4];
  });
}

/** Numbers to keep by sequence, none of them over the selection's own. */
function roomyCounts({ placed }: Layout): Uint32Array {
  return Uint32Array.from(
    placed,
    ({ keep }, s) => [keep, Math.floor(keep / 2), 0, Math.max(0, keep - 1)][s % 4],
  );
}

function selectCase(
  spec: SelectRowsSpec,
  sequences: readonly Selected[],
  heads: number,
  seed: number,
): KernelCase {
  const layout = layOut(sequences);
  const { placed, rows, targets, stride } = layout;
  const inRows = spec.output === "rows";
  return {
    family: "selectRows",
    name: `${heads} heads, ${describe(sequences)}`,
    kernel: selectRows(spec),
    parameters: { sequences: sequences.length, stride, heads },
    data: () => ({
      scores: scoreTable(layout, heads, seed),
      selections: encodeSelections(layout),
      rowTable: Uint32Array.from({ length: rows * ROW_WORDS }, (_, i) => i * 7 + 1),
      map: new Uint32Array(inRows ? targets : heads * stride).fill(POISON),
      rowsOut: new Uint32Array(targets * ROW_WORDS).fill(POISON),
      // Of rows there are never more than there is room for.
      keeps: inRows ? roomyCounts(layout) : countsOf(layout, heads),
      spans: new Uint32Array(2 * sequences.length + 2).fill(POISON),
    }),
    expected: ({ scores, rowTable, keeps, map, rowsOut, spans }) => {
      const wantedMap = Uint32Array.from(map);
      const wantedRows = Uint32Array.from(rowsOut);
      const wantedSpans = Uint32Array.from(spans);
      placed.forEach((selection, s) => {
        const { first } = selection;
        let { target } = selection;
        if (inRows && spec.counted) {
          const absent = selection.keep - Math.min(keeps[s], oracleContext(selection));
          for (let i = 0; i < absent; i++) {
            wantedMap[target + i] = first;
            const from = ROW_WORDS * first;
            wantedRows.set([...rowTable.subarray(from, from + 3), ABSENT_INDEX], ROW_WORDS * (target + i));
          }
          target += absent;
          const count =
            oracleSelect(contextScores(scores, layout, s, 0), { ...selection, keep: keeps[s] }).length;
          wantedSpans.set([target, count], 2 * s);
        }
        for (let head = 0; head < (inRows ? 1 : heads); head++) {
          const keep = spec.counted ? keeps[s * heads + head] : selection.keep;
          const own = contextScores(scores, layout, s, head);
          oracleSelect(own, { ...selection, keep }).forEach((j, i) => {
            if (!inRows) {
              wantedMap[head * stride + first + i] = j;
              return;
            }
            const from = ROW_WORDS * (first + j);
            wantedMap[target + i] = first + j;
            wantedRows.set([...rowTable.subarray(from, from + 3), i], ROW_WORDS * (target + i));
          });
        }
      });
      return {
        map: wantedMap,
        ...(inRows ? { rowsOut: wantedRows } : {}),
        ...(inRows && spec.counted ? { spans: wantedSpans } : {}),
      };
    },
    tolerance: 0,
    work: { flops: 0, bytes: scoreBytes(layout, inRows ? 1 : heads) },
  };
}

function spreadCase(
  sequences: readonly Selected[],
  heads: number,
  share: number,
  seed: number,
): KernelCase {
  const layout = layOut(sequences);
  return {
    family: "spreadBudget",
    name: `${heads} heads, share ${share}, ${describe(sequences)}`,
    kernel: spreadBudget(),
    parameters: { heads, sequences: sequences.length, stride: layout.stride, share },
    data: () => ({
      scores: scoreTable(layout, heads, seed),
      selections: encodeSelections(layout),
      keeps: new Uint32Array(sequences.length * heads + 3).fill(POISON),
    }),
    expected: ({ scores, keeps }) => {
      const wanted = Uint32Array.from(keeps);
      layout.placed.forEach((selection, s) => {
        const own = Array.from({ length: heads }, (_, head) => contextScores(scores, layout, s, head));
        wanted.set(oracleSpread(own, selection, share), s * heads);
      });
      return { keeps: wanted };
    },
    tolerance: 0,
    work: { flops: 0, bytes: scoreBytes(layout, heads) },
  };
}

function poolCase(
  spec: PoolScoresSpec,
  sequences: readonly Selected[],
  heads: number,
  width: number,
  seed: number,
): KernelCase {
  const layout = layOut(sequences);
  const { placed, stride } = layout;
  const sum = spec.heads === "sum";
  const columns = Math.max(0, ...placed.map(oracleContext));
  // Where all rows count, the window that the kernel is told means nothing.
  const told = spec.whole ? { ...layout, placed: placed.map((one) => ({ ...one, window: 2 })) } : layout;
  return {
    family: "poolScores",
    name: `${heads} heads, width ${width}, ${describe(sequences)}`,
    kernel: poolScores(spec),
    parameters: { columns, kvHeads: heads, sequences: sequences.length, width, stride },
    data: () => ({
      scores: scoreTable(layout, heads, seed),
      selections: encodeSelections(told),
      out: new Float32Array((sum ? 1 : heads) * stride).fill(Infinity),
    }),
    expected: ({ scores, out }) => {
      const wanted = Float64Array.from(out);
      placed.forEach((selection, s) => {
        const own = Array.from(
          { length: heads },
          (_, head) => Float64Array.from(contextScores(scores, layout, s, head)),
        );
        const inputs = sum ? [own[0].map((_, j) => own.reduce((total, head) => total + head[j], 0))] : own;
        inputs.forEach((input, head) =>
          wanted.set(oraclePool(input, spec.pool, width), head * stride + selection.first)
        );
      });
      return { out: wanted };
    },
    tolerance: spec.pool === "mean" || sum ? 1e-6 : 0,
    work: { flops: 0, bytes: scoreBytes(layout, heads) + scoreBytes(layout, sum ? 1 : heads) },
  };
}

/** Sequences of every size, some of them empty, and every border of `keep` and `sinks`. */
const SELECTIONS: readonly (readonly Selected[])[] = [
  [{ context: 1, keep: 1, window: 0 }],
  [{ context: 1, keep: 0 }, { context: 0, keep: 0, window: 0 }, { context: 0, keep: 4 }, {
    context: 1,
    keep: 5,
  }],
  [
    { context: 255, keep: 1 },
    { context: 256, keep: 255, window: 0 },
    { context: 257, keep: 256, window: 300 },
    { context: 257, keep: 257, scores: "negative" },
    { context: 256, keep: 100, sinks: 4, scores: "negative" },
    { context: 255, keep: 0, sinks: 4 },
  ],
  [
    { context: 257, keep: 100, scores: "equal" },
    { context: 300, keep: 100, sinks: 4, scores: "equal", window: 1 },
    { context: 300, keep: 10, sinks: 40 },
    { context: 300, keep: 10, sinks: 10, scores: "equal" },
    { context: 30, keep: 10, sinks: 4000 },
    { context: 700, keep: 350, scores: "steps", window: 257 },
    { context: 600, keep: 350, scores: "zeros" },
    { context: 600, keep: 450, scores: "holes", sinks: 2 },
  ],
  [
    { context: 5000, keep: 1234, sinks: 4, window: 1000 },
    { context: 5000, keep: 4999, scores: "steps", sinks: 1 },
    { context: 5000, keep: 2500, scores: "equal", sinks: 300 },
    { context: 4097, keep: 4096, scores: "steep" },
    { context: 5000, keep: 77, scores: "steep", sinks: 4 },
    { context: 5000, keep: 1, scores: "heads" },
    { context: 5000, keep: 1500, scores: "heads", sinks: 9 },
  ],
];

/** Correctness cases. The kernels use no subgroups and no stored type. */
export function cases(_variant: Variant): KernelCase[] {
  return [
    ...SELECTIONS.flatMap((sequences, i) => [
      selectCase({ output: "rows", counted: false }, sequences, 1, i + 1),
      selectCase({ output: "slots", counted: false }, sequences, 3, i + 11),
      selectCase({ output: "slots", counted: true }, sequences, 5, i + 21),
      selectCase({ output: "rows", counted: true }, sequences, 1, i + 25),
    ]),
    selectCase({ output: "rows", counted: false }, [{ context: 2 ** 18, keep: 100_000, sinks: 4 }], 2, 31),
    ...SELECTIONS.flatMap((sequences, i) => [
      spreadCase(sequences, 1, 0.2, i + 41),
      spreadCase(sequences, 4, [0.2, 0, 1, 0.5, 0.2][i], i + 51),
      spreadCase(sequences, 7, [0, 0.3, 0.2, 0.1, 0][i], i + 61),
    ]),
    spreadCase([{ context: 40, keep: 10, scores: "heads" }, { context: 0, keep: 0 }], 256, 0.2, 71),
    // 0.7 as f32 is below seven tenths, but ten times as much is 7 in f32.
    spreadCase([5, 10, 20, 35, 40].map((keep) => ({ context: 50, keep, scores: "heads" })), 3, 0.7, 73),
    ...(["each", "sum"] as const).flatMap((heads, i) =>
      (["none", "mean", "max"] as const).flatMap((pool, k) =>
        [1, 5, 31].map((width) => poolCase({ heads, pool }, SELECTIONS[2], 3, width, 80 + 10 * i + k))
      )
    ),
    poolCase({ heads: "sum", pool: "mean" }, SELECTIONS[1], 1, 7, 101),
    poolCase({ heads: "each", pool: "max" }, SELECTIONS[1], 8, 7, 103),
    poolCase({ heads: "each", pool: "max" }, [{ context: 300, keep: 1, scores: "negative" }], 2, 7, 105),
    poolCase({ heads: "each", pool: "mean" }, [{ context: 5000, keep: 1, scores: "positive" }], 2, 7, 107),
    poolCase({ heads: "sum", pool: "none" }, [{ context: 0, keep: 0 }], 2, 1, 109),
    ...(["none", "mean"] as const).map((pool) =>
      poolCase(
        { heads: "sum", pool, whole: true },
        [{ context: 300, keep: 9, window: 0 }, { context: 1, keep: 1, window: 0 }],
        3,
        5,
        111,
      )
    ),
  ];
}

/** Prompts of a model with 8 KV heads. */
export function bench(_variant: Variant): KernelCase[] {
  const prompts = (sequences: number, context: number): Selected[] =>
    Array.from({ length: sequences }, () => ({
      context,
      keep: Math.floor(context / 2),
      sinks: 4,
      scores: "steep",
    }));
  return [
    selectCase({ output: "rows", counted: false }, prompts(1, 1638), 1, 1),
    selectCase({ output: "rows", counted: false }, prompts(32, 1638), 1, 2),
    selectCase({ output: "slots", counted: false }, prompts(1, 32_000), 8, 3),
    spreadCase(prompts(1, 2016), 8, 0.2, 4),
    spreadCase(prompts(1, 32_000), 8, 0.2, 5),
    poolCase({ heads: "each", pool: "max" }, prompts(1, 32_000), 8, 7, 6),
    poolCase({ heads: "sum", pool: "none" }, prompts(32, 1638), 8, 1, 7),
  ];
}
