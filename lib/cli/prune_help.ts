// Help of --prune: how a policy is written, which there are, and the options of each.

import { KV_POLICIES, type PolicyOptionType } from "../../mod.ts";
import { WIDTH } from "./columns.ts";
import { kebab } from "./prune.ts";

/** What the help of a command says of `--prune`. */
export const PRUNE_NOTE = "cairn help prune lists the policies of KV-cache pruning and their options.";

/** An option as it is written: `keep=X`, `same-layer`. */
function written([name, type]: [string, PolicyOptionType]): string {
  if (type === "boolean") return kebab(name);
  return `${kebab(name)}=${type === "number" ? "X" : type === "whole" ? "N" : type.join("|")}`;
}

/** Lines of words that are joined by commas. */
function wrapped(words: readonly string[], indent: string): string {
  const lines: string[] = [];
  for (const [i, word] of words.entries()) {
    const last = lines.at(-1);
    const next = i < words.length - 1 ? `${word},` : word;
    if (last === undefined || last.length + 1 + next.length > WIDTH) lines.push(indent + next);
    else lines[lines.length - 1] = `${last} ${next}`;
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** Help of `--prune`. */
export function pruneHelp(): string {
  const policies = Object.entries(KV_POLICIES).map(([name, { summary, options }]) =>
    `  ${name}\n    ${summary}\n${wrapped(Object.entries(options).map(written), "    ")}`
  );
  return `Prune the KV cache, so that a model computes and keeps fewer keys and values

Usage: --prune POLICY[:OPTION,…][+POLICY[:OPTION,…]]

keep=X is the share of the full cache that may be taken, prompt and new tokens together. Of two
policies joined by + the first prunes prompts, the second new tokens.

Policies
${policies.join("\n")}
Examples
  # Less than half of the cache
  --prune pyramid-infer:keep=0.45

  # 400 tokens a layer on average; a layer drops its own keys and values too
  --prune pyramid-infer:cache-tokens=400,same-layer
`;
}
