// The comparisons of examples/kv_quality.ts: settings of one policy at one budget, most of them those of PyramidInfer's paper.

import { KV_POLICIES, type Model, type Turn } from "../mod.ts";
import { insideOf, lossOf, lossText, mean, percent, type Quality, signed } from "./quality_measures.ts";
import { textTable } from "./svg.ts";

/** A comparison at one budget: settings of one policy. */
export interface Comparison {
  readonly group: "where to shrink" | "recent ratio" | "selection" | "positions";
  readonly setting: string;
  readonly policy: string;
  readonly options: Readonly<Record<string, unknown>>;
}

const RECENT_RATIOS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
// Each layer's own keys and values are cut, so that more shapes reach down to the budget in few layers.
const OWN = { sameLayer: true };
/** What is compared. */
export const COMPARISONS: readonly Comparison[] = [
  ...([["more in shallow layers", "linear"], ["uniformly", "constant"], ["less in shallow layers", "cosine"]]
    .map(([setting, prefillDecayStrategy]): Comparison => ({
      group: "where to shrink",
      setting,
      policy: "pyramid-infer",
      options: { ...OWN, prefillDecayStrategy },
    }))),
  ...RECENT_RATIOS.map((recentRatio): Comparison => ({
    group: "recent ratio",
    setting: String(recentRatio),
    policy: "pyramid-infer",
    // The strategy that leaves room for the widest windows.
    options: { ...OWN, prefillDecayStrategy: "constant", recentRatio },
  })),
  ...[["shared by all heads", false], ["each KV head its own", true]].map((
    [setting, perKvHead],
  ): Comparison => ({
    group: "selection",
    setting: String(setting),
    policy: "pyramid-infer",
    options: { ...OWN, prefillDecayStrategy: "constant", perKvHead },
  })),
  // A policy that knows one kind of positions has nothing to compare.
  ...["original", "relative"].flatMap((positions): Comparison[] => {
    const words = KV_POLICIES["streaming-llm"]?.options.positions;
    return Array.isArray(words) && words.includes(positions)
      ? [{ group: "positions", setting: positions, policy: "streaming-llm", options: { positions } }]
      : [];
  }),
];

/** A comparison and its numbers; `held` says whether the budget left the settings what was asked for. */
export interface Outcome extends Comparison {
  readonly keep: number;
  readonly held: boolean;
  readonly inEffect: string;
  readonly quality: Quality;
}

/** What a budget left of the settings of a policy, in both kinds of turns that are measured. */
export function inEffect(
  pruned: Model,
  turns: readonly Turn[],
  asked: Comparison["options"],
): { held: boolean; inEffect: string } {
  let held = true;
  const told = turns.map((turn) => {
    try {
      const { prefillDecayStrategy, prefillDecay, recentRatio } = pruned.pruning?.settle(turn) ?? {};
      if (prefillDecayStrategy === undefined) return "as asked";
      held &&= prefillDecayStrategy === (asked.prefillDecayStrategy ?? "cosine") &&
        Math.abs(Number(recentRatio) - Number(asked.recentRatio ?? 0.2)) < 0.005;
      const two = (value: unknown) => Number(value).toFixed(2);
      return `${prefillDecayStrategy} ${two(prefillDecay)}, recent ${two(recentRatio)}`;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return "refused";
    }
  });
  return { held, inEffect: [...new Set(told)].join("; ") };
}

/** All outcomes as text. */
export function comparisonTable(outcomes: readonly Outcome[]): string {
  const rows = outcomes.map(({ group, setting, keep, held, inEffect, quality }) => [
    `${group}: ${setting}`,
    String(keep),
    percent(insideOf(quality)),
    lossText(lossOf(quality)),
    `${held ? "" : "* "}${inEffect}`,
  ]);
  const table = textTable([["comparison", "keep", "notes", "loss", "in effect (notes; loss)"], ...rows]);
  return outcomes.every(({ held }) => held)
    ? `${table}\n`
    : `${table}\n\n* The budget cannot be met with the settings asked for; these were put in their place.\n`;
}

/** How much more one loses than another, with the standard error over the windows, where there are several. */
function difference({ loss: one }: Quality, { loss: other }: Quality): string {
  if ("reason" in one || "reason" in other) return "–";
  const each = one.windows.map((nll, i) => nll - other.windows[i]);
  const middle = mean(each);
  if (each.length < 2) return signed(middle);
  const squares = each.reduce((sum, more) => sum + (more - middle) ** 2, 0);
  return `${signed(middle)} ± ${Math.sqrt(squares / (each.length - 1) / each.length).toFixed(4)}`;
}

/** Whether the paper's comparisons come out here as they did there. */
export function* comparisonFindings(outcomes: readonly Outcome[], keep: number): Generator<string> {
  const of = (group: Comparison["group"]) =>
    outcomes.filter((one) => one.group === group && one.keep === keep);
  const shapes = of("where to shrink");
  const lost = shapes.filter(({ held }) => !held).map(({ setting }) => `"${setting}"`);
  if (lost.length > 0) {
    yield `keep ${keep}: a model of so few layers cannot shrink ${lost.join(" or ")} at this budget, ` +
      `so the paper's order of the three cannot be told there.`;
  } else if (shapes.every(({ quality }) => lossOf(quality) !== undefined)) {
    const [more, even, less] = shapes.map(({ quality }) => lossOf(quality)!);
    const four = (nll: number) => nll.toFixed(4);
    const steps = [
      difference(shapes[1].quality, shapes[2].quality),
      difference(shapes[0].quality, shapes[1].quality),
    ];
    const order = less <= even && even <= more
      ? "the paper's order"
      : "not the paper's order, in which these are named";
    yield `keep ${keep}, loss by where it shrinks: less in shallow layers ${four(less)}, uniformly ${
      four(even)
    }, ` +
      `more in shallow layers ${four(more)} (from one to the next ${steps.join(", ")}): ${order}.`;
  }
  const ratios = of("recent ratio").filter(({ held, quality }) => held && lossOf(quality) !== undefined);
  if (ratios.length > 1) {
    const best = ratios.reduce((a, b) => lossOf(b.quality)! < lossOf(a.quality)! ? b : a);
    const held = ratios.map(({ setting }) => setting).join(", ");
    const same = Number(best.setting) >= 0.4 ? "as in the paper" : "not the paper's 0.4 to 0.6";
    yield `keep ${keep}, lowest loss of the recent ratios ${held}: ${best.setting}, ${same}.`;
  }
  for (const group of ["selection", "positions"] as const) {
    const [one, other] = of(group);
    if (!one || !other) continue;
    const tell = ({ setting, quality }: Outcome) =>
      `${setting} ${percent(insideOf(quality))}, ${lossText(lossOf(quality))}`;
    yield `keep ${keep}, ${group}, notes and loss: ${tell(one)}; ${tell(other)} ` +
      `(${difference(other.quality, one.quality)}).`;
  }
}
