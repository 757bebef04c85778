// What the derivatives of attention come to: tables, a picture, and sentences that are computed.

import type { EqualScoresPoint, Steps, SweepPoint } from "./gradient_differences.ts";
import { type Form, normBounds } from "./gradient_formulas.ts";
import { type Line, lineChart, powerOfTen, sideBySide, textTable } from "./svg.ts";
import { verdict } from "./verdict.ts";

const NORM = { kind: "norm", epsilon: 1e-6, placement: "inside" } as const;
const ADDED = { kind: "norm", epsilon: 1e-8, placement: "additive" } as const;
const ADDED_NAME = "NormAttention, added 1e-8";

/** What is compared where all scores are equal. */
export const FORMS: Readonly<Record<string, Form>> = {
  "softmax": { kind: "softmax" },
  "scaled linear": { kind: "linear" },
  "NormAttention": NORM,
};

/** What is compared of random rows. */
export const SWEPT: Readonly<Record<string, Form>> = { ...FORMS, [ADDED_NAME]: ADDED };

/** Measured derivatives. */
export interface GradientMeasures {
  /** Rows of the inputs. */
  readonly keys: number;
  /** Columns of random rows. */
  readonly width: number;
  readonly scores: readonly number[];
  readonly scales: readonly number[];
  readonly steps: Steps;
  /** By name of {@linkcode FORMS}, a point for each score. */
  readonly curves: ReadonlyMap<string, readonly EqualScoresPoint[]>;
  /** By name of {@linkcode SWEPT}, a point for each scale. */
  readonly sweeps: ReadonlyMap<string, readonly SweepPoint[]>;
  /** Longest row of the loss's gradient by the output. */
  readonly c1: number;
  /** Longest value. */
  readonly c2: number;
}

const names = Object.keys(FORMS);
const sweptNames = Object.keys(SWEPT);

/** A number in few digits. */
function short(value: number): string {
  const plain = value === 0 || value >= 0.01 && value < 1e4;
  return plain ? String(+value.toPrecision(4)) : value.toExponential(2);
}

/** The largest derivative of all points. */
function most(points: readonly { readonly measured: number }[]): number {
  return Math.max(...points.map(({ measured }) => measured));
}

/** Three tables with what stands above them. */
export function gradientTables(measures: GradientMeasures): string {
  const { keys, width, scores, scales, steps, curves, sweeps, c1, c2 } = measures;
  const unit = normBounds(NORM, 1, 1, keys);
  const bounds = normBounds(NORM, c1, c2, width);
  return `Largest |∂p/∂s| of a row of ${keys} keys that all have the score s, as the score falls: measured through the kernels in f32 by
central differences (s ± ${
    100 * steps.relative
  } %, softmax s ± ${steps.softmax}), and over the closed form. Feature map 1 + elu, NormAttention with ε = 1e-6.
Bounds: softmax 1/4, scaled linear 1/(4 s), NormAttention c1 c2/√ε = ${
    short(unit.tight)
  }, the paper's 3 c1 c2 d/(2√ε) = ${short(unit.loose!)}.

${
    textTable([
      ["score", ...names.flatMap((name) => [name, "closed form", "ratio"])],
      ...scores.map((score, i) => [
        short(score),
        ...names.flatMap((name) => {
          const { measured, closed } = curves.get(name)![i];
          return [short(measured), short(closed), (measured / closed).toFixed(4)];
        }),
      ]),
    ])
  }

The same weight's derivative by the key itself, behind the feature map (length of ∂p/∂k, measured):

${
    textTable([
      ["score", ...names],
      ...scores.map((score, i) => [short(score), ...names.map((name) => short(curves.get(name)![i].byKey))]),
    ])
  }

Largest |∂L/∂s| over all ${keys} × ${keys} scores of random rows of ${width} columns (normal; L = Σ G · O, G normal), features times a: measured,
in closed form, and how far both are apart anywhere, over the largest. Every row sees every key; in softmax, of the same scores,
the earlier ones. c1 = max |G| = ${short(c1)}, c2 = max |v| = ${short(c2)}: softmax is at most c1 c2/2 = ${
    short(c1 * c2 / 2)
  }, NormAttention with ε = 1e-6
inside c1 c2/√ε = ${short(bounds.tight)} (the paper's bound ${
    short(bounds.loose!)
  }), with 1e-8 added c1 c2/1e-8 = ${short(normBounds(ADDED, c1, c2, width).tight)}.

${
    textTable([
      ["a", ...sweptNames.flatMap((name) => [name, "closed form", "apart"])],
      ...scales.map((scale, i) => [
        short(scale),
        ...sweptNames.flatMap((name) => {
          const { measured, closed, apart } = sweeps.get(name)![i];
          return [short(measured), short(closed), apart.toExponential(0)];
        }),
      ]),
    ])
  }
`;
}

/** Whether the paper's claims come out. Differences may be 1 % over a bound. */
export function* gradientFindings(measures: GradientMeasures): Generator<string> {
  const { keys, width, scores, curves, sweeps, c1, c2 } = measures;
  const [softmax, linear, norm] = names.map((name) => curves.get(name)!);
  const ratios = [softmax, linear, norm].flat().map(({ measured, closed }) =>
    Math.abs(measured / closed - 1)
  );
  yield `Kernels and closed forms differ by at most ${(100 * Math.max(...ratios)).toFixed(2)} %.`;
  yield `Softmax's derivatives stay under their bound: ${verdict(most(softmax) <= 0.25)}, at most ${
    short(most(softmax))
  } of 0.25.`;
  const last = scores.length - 1;
  const grown = linear[last].measured / linear[0].measured;
  if (last > 0) {
    const slope = Math.log(grown) / Math.log(scores[last] / scores[0]);
    yield `Scaled linear attention has no bound: ${verdict(slope < -0.9)}: from a score of ${
      short(scores[0])
    } to ${short(scores[last])} the derivative grows from ${short(linear[0].measured)} to ${
      short(linear[last].measured)
    }, as the score to the power ${slope.toFixed(2)}.`;
  }
  const { tight } = normBounds(NORM, 1, 1, keys);
  yield `NormAttention is bounded: ${verdict(most(norm) <= tight * 1.01)}, at most ${short(most(norm))} of ${
    short(tight)
  }. The bound is large, and it is the epsilon's alone: at ${
    scores.filter((_, i) => norm[i].measured > linear[i].measured).length
  } of ${scores.length} scores its derivative is over that of scaled linear attention.`;
  if (last > 0) {
    const keyGrown = linear[last].byKey / linear[0].byKey;
    yield `By the keys themselves the derivative of scaled linear attention changes by a factor of ${
      short(keyGrown)
    } over the same scores${
      keyGrown < 2
        ? ": where 1 + elu is small, so is its slope, and what grows by the score is taken back behind it"
        : ""
    }.`;
  }
  const [inside, added] = ["NormAttention", ADDED_NAME].map((name) => sweeps.get(name)!);
  const bound = normBounds(NORM, c1, c2, width).tight;
  yield `Of random rows, too, an epsilon inside of the root holds the bound: ${
    verdict(most(inside) <= bound * 1.01)
  }, at most ${short(most(inside))} of ${short(bound)}; with 1e-8 added to it the derivatives come to ${
    short(most(added))
  }.`;
}

/** A line and its measured marks on logarithmic axes. */
function pair(name: string, color: string, points: readonly (readonly [number, number, number])[]): Line[] {
  const at = (which: 1 | 2) =>
    points.map((point) => [Math.log10(point[0]), Math.log10(point[which])] as const);
  return [
    { name: `${name}, closed form`, color, dash: "none", draw: "line", points: at(2) },
    { name: `${name}, kernels`, color, draw: "marks", points: at(1) },
  ];
}

/** A bound as a dashed line. */
function bound(name: string, color: string, xs: readonly number[], of: (x: number) => number): Line {
  return {
    name,
    color,
    dash: "6 4",
    draw: "line",
    points: xs.map((x) => [Math.log10(x), Math.log10(of(x))]),
  };
}

/** Both pictures side by side: derivatives by the score, and by the factor of the features. */
export function gradientPicture(
  { keys, width, scores, scales, curves, sweeps, c1, c2 }: GradientMeasures,
): string {
  const [blue, red, green, violet] = ["#1b6ca8", "#d1495b", "#2e933c", "#8f5fbf"];
  const colors = [blue, red, green, violet];
  const unit = normBounds(NORM, 1, 1, keys);
  const bounds = normBounds(NORM, c1, c2, width);
  const axes = (xs: readonly number[]) => {
    const [low, high] = [Math.floor(Math.log10(Math.min(...xs))), Math.ceil(Math.log10(Math.max(...xs)))];
    const xTicks = Array.from({ length: high - low + 1 }, (_, i) => low + i);
    return { xTicks, xText: powerOfTen, yText: powerOfTen };
  };
  const byScore = lineChart({
    title: "Derivative of a weight by its score, all scores equal",
    xTitle: "score s",
    yTitle: "largest |∂p/∂s|",
    ...axes(scores),
  }, [
    ...names.flatMap((name, i) =>
      pair(name, colors[i], curves.get(name)!.map((point) => [point.score, point.measured, point.closed]))
    ),
    bound("bound 1/4", blue, scores, () => 0.25),
    bound("bound 1/(4 s)", red, scores, (s) => 1 / (4 * s)),
    bound("bound c1 c2/√ε", green, scores, () => unit.tight),
    bound("the paper's 3 c1 c2 d/(2√ε)", green, scores, () => unit.loose!),
  ]);
  const byScale = lineChart({
    title: "Derivative of a loss by the scores, random rows",
    xTitle: "factor a of the features",
    yTitle: "largest |∂L/∂s|",
    ...axes(scales),
  }, [
    ...sweptNames.flatMap((name, i) =>
      pair(name, colors[i], sweeps.get(name)!.map((point) => [point.scale, point.measured, point.closed]))
    ),
    bound("bound c1 c2/2", blue, scales, () => c1 * c2 / 2),
    bound("bound c1 c2/√ε", green, scales, () => bounds.tight),
    bound("the paper's 3 c1 c2 d/(2√ε)", green, scales, () => bounds.loose!),
  ]);
  return sideBySide([byScore, byScale], 2);
}
