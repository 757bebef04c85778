// --prune: policies of KV-cache pruning as they are written on the command line, and as they are told there.

import {
  formatBytes,
  type GenerateRecord,
  type KvPolicy,
  type Model,
  parseKvPolicy,
  withKvPruning,
} from "../../mod.ts";
import type { ReadValue } from "./flag.ts";
import { kebab, told } from "./told.ts";

/** A policy and its options. A budget that cannot be met is a wrong call too, though only a run's lengths tell it. */
export const policy: ReadValue<KvPolicy> = (_, text) => {
  const parsed = told("prune", text, () => parseKvPolicy(text));
  return {
    ...parsed,
    rules: (shape) => told("prune", text, () => parsed.rules(shape)),
    schedule: (shape, turn) => told("prune", text, () => parsed.schedule(shape, turn)),
  };
};

/** The model with its cache pruned, where a policy is given. */
export function pruned(model: Model, policy: KvPolicy | undefined): Model {
  return policy ? told("prune", policy.name, () => withKvPruning(policy)(model)) : model;
}

/** Part of a cache that is kept, in bytes and as a share. */
export function ofFull(bytes: number, full: number): string {
  return `${formatBytes(bytes)} of ${formatBytes(full)} (${(bytes / full * 100).toFixed(1)} %)`;
}

function value(setting: unknown): string {
  if (typeof setting === "number") return `${Number(setting.toFixed(4))}`;
  return Array.isArray(setting) ? setting.map(value).join(" ") : String(setting);
}

/** Settings as words; empty without any. */
export function settings(settled: Readonly<Record<string, unknown>> = {}): string {
  return Object.entries(settled).filter(([, setting]) => setting !== undefined)
    .map(([name, setting]) => `${kebab(name)} ${value(setting)}`).join(", ");
}

type Kept = NonNullable<GenerateRecord["kept"]>;

/** Kept positions as JSON tells them: by layer, or by layer and head where heads keep different ones. */
export function keptByLayer(kept: Kept): Kept | Kept[number] {
  const shared = kept.every(([first, ...others]) => others.every((head) => head.join() === first.join()));
  return shared ? kept.map(([first]) => first) : kept;
}
