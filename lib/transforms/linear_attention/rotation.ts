// Positions of linear attention: features are rotated after the feature map.

import { type AttentionShape, ops, type Trace, type Weight } from "../../layers/mod.ts";

/** How features are rotated by their positions. */
export interface Rotation {
  /**
   * `interleaved` rotates pairs (2i, 2i + 1), `half` pairs (i, i + size / 2); `concat` makes [x cos | x sin] of x and doubles
   * the size, with one angle a component.
   */
  readonly layout: "interleaved" | "half" | "concat";
  /** Radians a position: one a pair (or component), or a weight that holds them as turns (`ops.angleTurns`). */
  readonly thetas: readonly number[] | Weight;
  /** Whether every head has angles of its own, head by head in `thetas`. Default: all share them. */
  readonly perHead?: boolean;
  /** Unit vector v [1, headSize] f32 of a Householder reflection x - 2 (x · v) v before the rotation. */
  readonly householder?: Weight;
}

/** A rotation, none, or by default the layer's own rotary embedding. */
export type RotationOption = Rotation | "none";

/** What {@linkcode ops.featureMap} takes of it. */
export interface MappedRotation {
  readonly rotation?: ops.FeatureRotation;
  readonly householder?: Weight;
}

/**
 * What to rotate by; angles given as numbers become a table of the trace. With `restart`, positions begin anew in every
 * block of so many.
 *
 * @throws {RangeError} when the layer's rotary embedding covers only a part of a head in halves.
 */
export function rotationOf(
  trace: Trace,
  option: RotationOption | undefined,
  shape: AttentionShape,
  restart?: number,
): MappedRotation {
  if (option === "none" || (option === undefined && !shape.rotary)) return {};
  const { layout, thetas, perHead = false, householder } = option ?? ownRotation(shape);
  const turns = Array.isArray(thetas)
    ? ops.constantTable(trace, "turns", thetas, turnTable)
    : thetas as Weight;
  return {
    rotation: { layout, turns, perHead, ...(restart === undefined ? {} : { restart }) },
    ...(householder ? { householder } : {}),
  };
}

/** Angles as turns, in the bits of a table of f32. */
function turnTable(thetas: readonly number[]): Float32Array {
  return new Float32Array(ops.angleTurns(thetas).buffer);
}

/** The layer's rotary embedding, which the features take over. */
function ownRotation({ rotary, headSize }: AttentionShape): Rotation {
  const { layout, size, frequencies } = rotary!;
  if (size < headSize && layout === "half") {
    throw new RangeError(
      `Linear attention rotates whole heads: this layer's rotary embedding covers ${size} of ${headSize} components`,
    );
  }
  const still = new Array<number>((headSize - size) / 2).fill(0);
  return { layout, thetas: [...frequencies, ...still] };
}
