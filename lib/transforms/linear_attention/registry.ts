// The cores of linear attention by name, with the options that each takes: what a command line goes by.

import { type Core, ops } from "../../layers/mod.ts";
import type { OptionType } from "../named_options.ts";
import { cosFormer } from "./cos_former.ts";
import { deltaNet, gatedDeltaNet } from "./delta_net.ts";
import { diagAttention } from "./diag_attention.ts";
import { gla } from "./gla.ts";
import { hybrid } from "./hybrid.ts";
import { lightningAttention } from "./lightning_attention.ts";
import { linearAttention } from "./linear_core.ts";
import { mamba2 } from "./mamba2.ts";
import { normAttention } from "./norm_attention.ts";
import { performer } from "./performer.ts";
import { retention } from "./retention.ts";

/** A core by name. */
export interface LinearCoreEntry {
  /** What it does, in one line. */
  readonly summary: string;
  /** Its options by their names in code. */
  readonly options: Readonly<Record<string, OptionType>>;
  /**
   * Makes it for a layer.
   *
   * @throws {RangeError} when an option is out of its range.
   */
  make(options: Readonly<Record<string, unknown>>, layer: number, layers: number): Core;
}

/** Options of a norm in place of a denominator. */
const NORM: Readonly<Record<string, OptionType>> = {
  norm: ["rms", "layer", "none"],
  epsilon: "number",
  epsilonPlacement: ["inside", "additive"],
  perHead: "boolean",
};
const FEATURES: Readonly<Record<string, OptionType>> = { featureMap: ops.FEATURE_MAPS };

/** All cores by their names. */
export const LINEAR_CORES: Readonly<Record<string, LinearCoreEntry>> = {
  "norm-attention": {
    summary: "TransNormer: no scale and no denominator, a norm over all heads instead",
    options: { ...FEATURES, ...NORM },
    make: normAttention,
  },
  "diag-attention": {
    summary: "TransNormer: attention inside of blocks of positions, softmax or ReLU",
    options: { block: "whole", score: ["softmax", "relu"], scale: "number" },
    make: diagAttention,
  },
  "lightning-attention": {
    summary:
      "TransNormerLLM: a fixed decay by head and layer, a norm over all heads, the layer's output gate",
    options: { ...FEATURES, formula: ["alibi", "paper"], ...NORM },
    make: (options, layer, layers) => lightningAttention({ ...options, layer, layers }),
  },
  "linear-attention": {
    summary: "Katharopoulos et al.: positive features with a denominator",
    options: { ...FEATURES, epsilon: "number", denominatorRotary: "boolean" },
    make: linearAttention,
  },
  "cosformer": {
    summary: "ReLU features weighted by the cosine of the distance; needs max-length",
    options: { maxLength: "whole", clamp: "number" },
    make: (options) => cosFormer(options as unknown as Parameters<typeof cosFormer>[0]),
  },
  "performer": {
    summary: "Random features that stand for softmax on average",
    options: { features: "whole", seed: "whole", epsilon: "number" },
    make: performer,
  },
  "retention": {
    summary: "RetNet: a fixed decay by head, every head normed by itself",
    options: NORM,
    make: retention,
  },
  "gla": {
    summary: "A decay by key component, from data; needs a projection for it",
    options: { gateScale: "number", ...NORM },
    make: gla,
  },
  "mamba2": {
    summary: "A decay by head and token, from data; needs a projection for it",
    options: {},
    make: mamba2,
  },
  "delta-net": {
    summary: "A write replaces what its key held; needs a projection for its strength",
    options: { ...FEATURES, ...NORM },
    make: deltaNet,
  },
  "gated-delta-net": {
    summary: "As delta-net, of a state that decays; needs projections for both",
    options: { ...FEATURES, ...NORM },
    make: gatedDeltaNet,
  },
  "hybrid": {
    summary: "Softmax on the newest positions and linear attention on older ones, under one normaliser",
    options: { window: "whole", ...FEATURES, gate: "number" },
    make: hybrid,
  },
};
