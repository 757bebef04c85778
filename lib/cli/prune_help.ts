// Help of --prune: how a policy is written, which there are, and the options of each.

import { KV_POLICIES } from "../../mod.ts";
import { entriesHelp } from "./option_help.ts";

/** What the help of a command says of `--prune`. */
export const PRUNE_NOTE = "cairn help prune lists the policies of KV-cache pruning and their options.";

/** Help of `--prune`. */
export function pruneHelp(): string {
  return `Prune the KV cache, so that a model computes and keeps fewer keys and values

Usage: --prune POLICY[:OPTION,…][+POLICY[:OPTION,…]]

keep=X is the share of the full cache that may be taken, prompt and new tokens together. Of two
policies joined by + the first prunes prompts, the second new tokens.

Policies
${entriesHelp(KV_POLICIES)}
Examples
  # Less than half of the cache
  --prune pyramid-infer:keep=0.45

  # 400 tokens a layer on average; a layer drops its own keys and values too
  --prune pyramid-infer:cache-tokens=400,same-layer
`;
}
