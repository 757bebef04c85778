// Linear attention as text, for command lines: `name:layers=3-5,option=value`.

import type { PipelineModel } from "../../layers/mod.ts";
import { parseNamedOptions } from "../named_options.ts";
import { LINEAR_CORES } from "./registry.ts";
import { withLinearAttention } from "./with_linear_attention.ts";

/** A transform that was written as text. */
export interface ParsedLinearAttention {
  /** Name of the core. */
  readonly name: string;
  /** The transform. */
  readonly transform: <M extends PipelineModel>(model: M) => M;
}

/**
 * Reads which layers are meant: numbers and ranges from 0, joined by `/`, as `0-2/5`.
 *
 * @throws {RangeError} when it is something else.
 */
function layerSet(text: string): Set<number> {
  const layers = new Set<number>();
  for (const part of text.split("/")) {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(part.trim()) ?? [];
    if (first === undefined || Number(last) < Number(first) || Number(last) > 4096) {
      throw new RangeError(
        `layers takes numbers and ranges from 0, as 3-5 or 0-2/5: received ${JSON.stringify(text)}`,
      );
    }
    for (let layer = Number(first); layer <= Number(last); layer++) layers.add(layer);
  }
  return layers;
}

/**
 * Reads a core of linear attention and the layers that get it: its name, then its options in kebab case. Without `layers`
 * all get it.
 *
 * @throws {RangeError} a name or option that does not exist, with those that do, or a value out of its range.
 */
export function parseLinearAttention(text: string): ParsedLinearAttention {
  const entries = Object.fromEntries(
    Object.entries(LINEAR_CORES).map((
      [name, { options }],
    ) => [name, { options: { layers: "text", ...options } as const }]),
  );
  const { name, options: { layers, ...options } } = parseNamedOptions(text, ["core", "cores"], entries);
  const named = layers === undefined ? undefined : layerSet(String(layers));
  const { make } = LINEAR_CORES[name];
  // Options are checked now, not when a model is at hand.
  make(options, 0, 1);
  return {
    name,
    transform(model) {
      return withLinearAttention((layer, count) => make(options, layer, count), {
        layers(layer, count) {
          const beyond = named && [...named].find((index) => index >= count);
          if (beyond !== undefined) {
            throw new RangeError(
              `There is no attention layer ${beyond}: the model has ${count}, from 0 to ${count - 1}`,
            );
          }
          return named === undefined || named.has(layer);
        },
      })(model);
    },
  };
}
