// The feature maps themselves, as WGSL text.

import { activationText } from "./activations.ts";

/** How a head's components become features. */
export type FeatureMap =
  | "identity"
  | "elu"
  | "1+elu"
  | "2+elu"
  | "relu"
  | "leaky-relu"
  | "silu"
  | "gelu"
  | "sigmoid"
  | "sine"
  | "squared-relu"
  | "softmax"
  | "exp"
  | "hedgehog";

/**
 * All feature maps. `elu` is without the 1; `leaky-relu` has the slope 0.01; `gelu` is the exact one; `softmax` goes over
 * the head; `exp` is exp(x - the head's maximum); `hedgehog` is [softmax(x), softmax(-x)] and doubles the size.
 */
export const FEATURE_MAPS: readonly FeatureMap[] = [
  "identity",
  "elu",
  "1+elu",
  "2+elu",
  "relu",
  "leaky-relu",
  "silu",
  "gelu",
  "sigmoid",
  "sine",
  "squared-relu",
  "softmax",
  "exp",
  "hedgehog",
];

/** Features that a map makes of a head. */
export function mappedSize(headSize: number, map: FeatureMap): number {
  return map === "hedgehog" ? 2 * headSize : headSize;
}

// Near 0 the difference exp(x) - 1 has few digits left; seven terms of the series have them all down to -0.35.
const ELU = `fn elu(x: f32) -> f32 {
  if (x > 0.0) { return x; }
  if (x < -0.35) { return exp(max(x, -100.0)) - 1.0; }
  let series = fma(fma(fma(fma(fma(x, 1.0 / 5040.0, 1.0 / 720.0), x, 1.0 / 120.0), x, 1.0 / 24.0), x, 1.0 / 6.0), x, 0.5);
  return fma(series * x, x, x);
}
`;

// Quarter turns are taken off in three parts. Beyond 65,536 numbers are over 0.007 apart and their sines mean nothing.
const SINE = `fn sine(given: f32) -> f32 {
  let x = clamp(given, -65536.0, 65536.0);
  let n = round(x * 0.636619772);
  let rest = fma(-n, 7.54978995489188216e-8, fma(-n, 4.837512969970703125e-4, fma(-n, 1.5703125, x)));
  return quarterTurns(bitcast<u32>(i32(n)), sineCosine(rest)).y;
}
`;

/** Functions and the expression for `fn map(x: f32) -> f32` of a map that takes components one by one. */
const ELEMENTWISE: Readonly<Partial<Record<FeatureMap, readonly [string, string]>>> = {
  identity: ["", "x"],
  elu: [ELU, "elu(x)"],
  // Never as 1 + (exp(x) - 1): that leaves small features no digits.
  "1+elu": ["", "select(exp(clamp(x, -100.0, 0.0)), 1.0 + x, x > 0.0)"],
  "2+elu": ["", "select(1.0 + exp(clamp(x, -100.0, 0.0)), 2.0 + x, x > 0.0)"],
  relu: ["", "max(x, 0.0)"],
  "leaky-relu": ["", "select(0.01 * x, x, x > 0.0)"],
  silu: [activationText("silu"), "silu(max(x, -100.0))"],
  gelu: [activationText("gelu"), "gelu(max(x, -100.0))"],
  sigmoid: [activationText("sigmoid"), "sigmoid(x)"],
  sine: [SINE, "sine(x)"],
  "squared-relu": ["", "max(x, 0.0) * max(x, 0.0)"],
};

/** A feature map as WGSL text. */
export interface FeatureMapText {
  /** Functions it calls. */
  readonly functions: string;
  /** Reductions over the head it calls, of vec2<f32>: the largest, the sum. */
  readonly reductions: readonly ("bound" | "total")[];
  /**
   * Statements that set `first` (and of hedgehog `second`) from `own`, which is this invocation's component if it is
   * `inHead`; the others get 0.
   */
  readonly statements: string;
}

/** Text of a map; `reduce` are the arguments of a reduction after the value. */
export function featureMapText(map: FeatureMap, reduce: string): FeatureMapText {
  const elementwise = ELEMENTWISE[map];
  if (elementwise) {
    const [functions, value] = elementwise;
    return {
      functions: `${functions}fn map(x: f32) -> f32 { return ${value}; }`,
      reductions: [],
      statements: "let first = select(0.0, map(own), inHead);",
    };
  }
  // Bounds of the head; what is below -3.4e38 has nothing to say.
  const bounds = `let bounds = bound(select(vec2<f32>(-3.4e38), vec2<f32>(own, -own), inHead), ${reduce});`;
  const power = (value: string, bound: string): string =>
    `select(0.0, exp(max(${value} - bounds.${bound}, -100.0)), inHead)`;
  if (map === "exp") {
    return {
      functions: "",
      reductions: ["bound"],
      statements: `${bounds}\n  let first = ${power("own", "x")};`,
    };
  }
  return {
    functions: "",
    reductions: ["bound", "total"],
    statements: `${bounds}
  let powers = vec2<f32>(${power("own", "x")}, ${map === "hedgehog" ? power("-own", "y") : "0.0"});
  let sums = total(powers, ${reduce});
  let first = powers.x / sums.x;${map === "hedgehog" ? "\n  let second = powers.y / sums.y;" : ""}`,
  };
}
