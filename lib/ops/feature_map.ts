// Feature maps of linear attention by head, with what may follow them: reflection, rotation by position, l2 norm.

import {
  type OpDefinition,
  type Operand,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
  type Weight,
  weightOperand,
} from "../graph/mod.ts";
import {
  type FeatureMap,
  featureMap as featureMapKernel,
  featureSize,
  mappedSize,
} from "../../wgsl/feature_map.ts";
import { checkHeads } from "./linear_shapes.ts";
import { rowTable } from "./row_tables.ts";

/** Rotation of features by their rows' original positions. */
export interface FeatureRotation {
  /**
   * `interleaved` rotates pairs (2i, 2i + 1), `half` pairs (i, i + size / 2); `concat` makes [x cos | x sin] and doubles the size
   * (LRPE of TransNormerLLM, cosFormer).
   */
  readonly layout: "interleaved" | "half" | "concat";
  /**
   * Angles a position as `angleTurns` makes them, one for each pair (each component for `concat`): the name of a constant of the
   * trace, or an f32 weight that holds the same bits.
   */
  readonly turns: string | Weight;
  /** Whether every head has angles of its own, head by head in `turns`; else all share one list. */
  readonly perHead: boolean;
  /** Positions are counted anew in every block of so many. Default: never. */
  readonly restart?: number;
}

/** Arguments of {@linkcode featureMap}, applied in this order: map, householder, rotation, normalize, scale, zeroToken. */
export interface FeatureMapOptions {
  /** Heads in a row. */
  readonly heads: number;
  /** Components of a head, at most 256. */
  readonly headSize: number;
  /** The map. */
  readonly map: FeatureMap;
  /** Unit vector v, f32 [1, mapped size], of the reflection x - 2 (x · v) v; all heads share it. */
  readonly householder?: Weight;
  /** Rotation by position. */
  readonly rotation?: FeatureRotation;
  /** `l2`: x / sqrt(Σ x² + 1e-6) by head. */
  readonly normalize?: "l2";
  /** Factor of the features. Default: 1. */
  readonly scale?: number;
  /** Rows of this token become 0. */
  readonly zeroToken?: number;
}

const featureMapOp: OpDefinition<FeatureMapOptions> = {
  kind: "featureMap",
  takesViews: true,
  lower({ inputs: [x], outputs: [y], attributes }, emit): void {
    const { heads, headSize, map, householder, rotation, normalize, scale = 1, zeroToken } = attributes;
    const { stride, offset } = placementOf(x);
    const kernel = featureMapKernel({
      headSize,
      map,
      householder: householder !== undefined,
      ...(rotation ? { rotation: rotation.layout, perHead: rotation.perHead } : {}),
      normalize: normalize === "l2",
      zeroes: zeroToken !== undefined,
      subgroups: emit.target.features.subgroups,
    });
    emit.dispatch(
      kernel,
      [
        valueOperand(x),
        rowTable(x.rows),
        ...(householder ? [weightOperand(householder)] : []),
        ...(rotation ? [turnsOperand(rotation.turns)] : []),
        valueOperand(y),
      ],
      (counts) => ({
        rows: counts[x.rows.name],
        heads,
        stride,
        offset,
        restart: rotation?.restart ?? 0,
        zeroToken: zeroToken ?? 0,
        scale,
      }),
    );
  },
};

function turnsOperand(turns: string | Weight): Operand {
  return typeof turns === "string" ? resource(turns) : weightOperand(turns);
}

/**
 * Features of each head: [rows, heads · featureSize], where the feature size is the head size, doubled by `hedgehog` and by a
 * `concat` rotation.
 *
 * @throws {TypeError} when widths or weights do not fit.
 * @throws {RangeError} when a number is out of its range.
 */
export function featureMap(trace: Trace, x: Value, options: FeatureMapOptions): Value {
  const { heads, headSize, map, householder, rotation } = options;
  checkHeads("featureMap", "x", x, heads, headSize);
  const mapped = mappedSize(headSize, map);
  if (householder) checkWeight("reflection", householder, mapped);
  if (rotation && typeof rotation.turns !== "string") {
    const angles = (rotation.layout === "concat" ? mapped : mapped / 2) * (rotation.perHead ? heads : 1);
    checkWeight("turns", rotation.turns, 2 * angles);
  }
  const { restart } = rotation ?? {};
  if (restart !== undefined && !(Number.isInteger(restart) && restart >= 1)) {
    throw new RangeError(`Positions restart after a positive number of them: current value is ${restart}`);
  }
  const y = trace.value("features", x.rows, heads * featureSize(headSize, map, rotation?.layout));
  trace.append(featureMapOp, [x], [y], options);
  return y;
}

function checkWeight(what: string, { name, rows, columns, dtype }: Weight, numbers: number): void {
  if (rows * columns !== numbers) {
    throw new TypeError(
      `featureMap takes ${numbers} numbers as ${what}: weight ${name} is [${rows}, ${columns}]`,
    );
  }
  if (dtype !== "f32") {
    throw new TypeError(
      `featureMap takes ${what} as f32: weight ${name} is stored as ${dtype}, store it as f32`,
    );
  }
}
