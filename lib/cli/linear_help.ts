// Help of --linear: how a core is written, which there are, and the options of each.

import { LINEAR_CORES } from "../../mod.ts";
import { entriesHelp, wrapped } from "./option_help.ts";

/** What the help of a command says of `--linear`. */
export const LINEAR_NOTE = "cairn help linear lists the cores of linear attention and their options.";

/** Values that are written out once, below. */
const PLACEHOLDERS = { featureMap: "MAP" };

/** All feature maps that some core takes. */
function featureMaps(): string[] {
  const types = Object.values(LINEAR_CORES).map(({ options }) => options.featureMap);
  return [...new Set(types.flatMap((type) => typeof type === "object" ? type : []))];
}

/** Help of `--linear`. */
export function linearHelp(): string {
  return `Put linear attention in place of softmax attention, so that layers keep a state instead of a cache

Usage: --linear CORE[:layers=LAYERS][,OPTION,…]

LAYERS are attention layers from 0: numbers and ranges joined by /, as 3-5 or 0-2/5; default all.
An option without a value is a switch, which =false turns off. --linear may be given several times:
the swaps are made in that order, and then --prune prunes the softmax layers that remain. A model
that was not trained so writes something else than it would: with --check, generate and score tell
the perplexity of the prompt before and after.

Cores
${entriesHelp(LINEAR_CORES, PLACEHOLDERS)}
Feature maps (MAP)
${wrapped(featureMaps(), "  ")}
Examples
  # TransNormer's norm attention in the upper half of six layers
  --linear norm-attention:layers=3-5

  # TransNormer: attention inside of blocks below, norm attention above
  --linear diag-attention:layers=0-2,block=64 --linear norm-attention:layers=3-5,feature-map=1+elu

  # Softmax on the newest 128 positions, linear attention on what is older
  --linear hybrid:layers=0-2/5,window=128
`;
}
