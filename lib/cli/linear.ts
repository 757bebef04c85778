// --linear: cores of linear attention as they are written on the command line, and what is told of them.

import {
  formatBytes,
  type Model,
  type ParsedLinearAttention,
  parseLinearAttention,
  type PlanReport,
  planRun,
} from "../../mod.ts";
import type { ReadValue } from "./flag.ts";
import { told } from "./told.ts";

/** A core and its layers, with the text that asked for them. */
export interface LinearSwap extends ParsedLinearAttention {
  /** As it was written. */
  readonly text: string;
}

/** A core of linear attention, its layers and its options. */
export const linearSwap: ReadValue<LinearSwap> = (_, text) => ({
  text,
  ...told("linear", text, () => parseLinearAttention(text)),
});

/** The model with linear attention as it was asked for, one swap after the other. */
export function linearized(model: Model, swaps: readonly LinearSwap[] = []): Model {
  return swaps.reduce(
    (swapped, { text, transform }) => told("linear", text, () => transform(swapped)),
    model,
  );
}

/**
 * Plans the shortest run after each swap, without a GPU.
 *
 * @throws {WrongCall} when a core does not suit the model's layers.
 */
export function requireSuited(model: Model, swaps: readonly LinearSwap[] = []): void {
  swaps.forEach(({ text }, i) => {
    const swapped = linearized(model, swaps.slice(0, i + 1));
    told("linear", text, () => planRun(swapped, { promptTokens: 1, maxTokens: 1 }));
  });
}

/** Numbers from 0 as the flag takes them: `0-2/5`. */
function ranges(layers: readonly number[]): string {
  const runs: [first: number, last: number][] = [];
  for (const layer of layers) {
    const last = runs.at(-1);
    if (last && last[1] === layer - 1) last[1] = layer;
    else runs.push([layer, layer]);
  }
  return runs.map(([first, last]) => first === last ? `${first}` : `${first}-${last}`).join("/");
}

/** Which layers have which core, where a later swap may have replaced an earlier one; empty where none has. */
export function coresByLayer({ linearized = [] }: Model): string {
  const cores = new Map(
    linearized.flatMap(({ core, layers }) => layers.map((layer) => [layer, core] as const)),
  );
  const sorted = [...cores].sort(([a], [b]) => a - b);
  return [...Map.groupBy(sorted, ([, core]) => core)].map(([core, entries]) => {
    const layers = entries.map(([layer]) => layer);
    return `${core} in layer${layers.length === 1 ? "" : "s"} ${ranges(layers)}`;
  }).join(", ");
}

/** Bytes of states and of the keys and values that they stand for. */
export function stateInPlace(layers: PlanReport["layers"]): string {
  const states = layers.filter(({ kvBytes }) => kvBytes !== undefined);
  const state = states.reduce((sum, { stateBytes }) => sum + stateBytes, 0);
  const kv = states.reduce((sum, { kvBytes = 0 }) => sum + kvBytes, 0);
  return `state ${formatBytes(state)} in place of ${formatBytes(kv)} of keys and values (${
    (state / kv * 100).toFixed(1)
  } %)`;
}
