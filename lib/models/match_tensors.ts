// Which tensors of a checkpoint an architecture's weights come from.

import type { Checkpoint } from "../weights/mod.ts";
import type { Architecture, TensorSource } from "./architecture.ts";

/** What fits together, and what is left over. */
export interface MatchedTensors {
  /** The checkpoint's name for every tensor that is needed and there; all but those with a fallback are. */
  readonly names: ReadonlyMap<TensorSource, string>;
  /** One warning for all tensors that are not used and not known to be harmless; else none. */
  readonly warnings: readonly string[];
}

/**
 * Finds every tensor that is needed, by the checkpoint's header alone.
 *
 * @throws {Error} when one is missing.
 * @throws {RangeError} when one has another shape.
 */
export function matchTensors(architecture: Architecture, checkpoint: Checkpoint): MatchedTensors {
  const names = new Map<TensorSource, string>();
  for (const tensor of architecture.sources.flatMap((source) => source.tensors)) {
    const name = tensor.names.find((candidate) => checkpoint.tensors.has(candidate));
    if (name === undefined) {
      if (tensor.fallback) continue;
      throw new Error(
        `The checkpoint has no tensor ${
          tensor.names.join(" or ")
        }: it does not belong to this config.json, or a file is missing`,
      );
    }
    const { shape } = checkpoint.tensors.get(name)!;
    if (shape.length !== tensor.shape.length || shape.some((size, i) => size !== tensor.shape[i])) {
      throw new RangeError(
        `Tensor ${name} has shape [${shape.join(", ")}], config.json asks for [${tensor.shape.join(", ")}]`,
      );
    }
    names.set(tensor, name);
  }
  const used = new Set(names.values());
  const extra = [...checkpoint.tensors.keys()].filter((name) =>
    !used.has(name) && !architecture.harmless.test(name)
  );
  const shown = `${extra.slice(0, 5).join(", ")}${extra.length > 5 ? ", …" : ""}`;
  const warning = `${extra.length} tensors of the checkpoint are not used: ${shown}`;
  return { names, warnings: extra.length ? [warning] : [] };
}
