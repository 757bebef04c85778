// Random features of the Performer (Choromanski et al. 2021, arXiv:2009.14794), with directions made on the host.

import {
  type OpDefinition,
  placementOf,
  resource,
  type Trace,
  type Value,
  valueOperand,
} from "../graph/mod.ts";
import { performerFeatures as performerFeaturesKernel } from "../../wgsl/performer_features.ts";
import { checkHeads } from "./linear_shapes.ts";

/** Arguments of {@linkcode performerFeatures}. */
export interface PerformerFeaturesOptions {
  /** Heads in a row. */
  readonly heads: number;
  /** Components of a head, at most 256. */
  readonly headSize: number;
  /** Random features of a head, at most 256. */
  readonly features: number;
  /** Seed of the directions, a whole number below 2^32; queries and keys need the same. */
  readonly seed: number;
  /**
   * Whether exponents are shifted by the greatest of the row and head, which a division by the denominator undoes. Keys are
   * not shifted: nothing of them may depend on later ones.
   */
  readonly isQuery: boolean;
}

const performerFeaturesOp: OpDefinition<PerformerFeaturesOptions & { readonly directions: string }> = {
  kind: "performerFeatures",
  takesViews: true,
  lower({ inputs: [x], outputs: [y], attributes }, emit): void {
    const { heads, headSize, features, isQuery, directions } = attributes;
    const { stride, offset } = placementOf(x);
    const { subgroups } = emit.target.features;
    emit.dispatch(
      performerFeaturesKernel({ headSize, features, stabilized: isQuery, subgroups }),
      [valueOperand(x), resource(directions), valueOperand(y)],
      (counts) => ({ rows: counts[x.rows.name], heads, stride, offset }),
    );
  },
};

/**
 * φ(x)_i = exp(w_i · x' - |x'|² / 2 - c) / √features with x' = x · headSize^(-1/4): [rows, heads · features]. The directions w are
 * those of {@linkcode performerDirections}, the same for all heads; c is the greatest exponent for queries, 0 for keys.
 *
 * @throws {TypeError} when the width does not fit.
 * @throws {RangeError} when a number is out of its range.
 */
export function performerFeatures(trace: Trace, x: Value, options: PerformerFeaturesOptions): Value {
  const { heads, headSize, features, seed } = options;
  checkHeads("performerFeatures", "x", x, heads, headSize);
  if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32)) {
    throw new RangeError(`A seed is a whole number below 2^32: current value is ${seed}`);
  }
  const directions = `performer.${headSize}.${features}.${seed}`;
  trace.constants.set(directions, () => performerDirections(headSize, features, seed));
  const y = trace.value("features", x.rows, heads * features);
  trace.append(performerFeaturesOp, [x], [y], { ...options, directions });
  return y;
}

/**
 * Directions [headSize, features]: gaussian, those of each headSize orthogonal to each other, with lengths of gaussian
 * vectors. The same for the same arguments on every machine.
 */
export function performerDirections(headSize: number, features: number, seed: number): Float32Array {
  const normal = gaussian(seed);
  const vector = () => Float64Array.from({ length: headSize }, normal);
  const table = new Float32Array(headSize * features);
  let block: Float64Array[] = [];
  for (let feature = 0; feature < features; feature++) {
    if (block.length === headSize) block = [];
    const direction = vector();
    // Twice is enough (Gram-Schmidt with reorthogonalization).
    for (const other of [...block, ...block]) addScaled(direction, other, -dot(direction, other));
    const length = Math.sqrt(dot(direction, direction));
    block.push(direction.map((value) => value / length));
    const own = vector();
    const scale = Math.sqrt(dot(own, own));
    block.at(-1)!.forEach((value, d) => table[d * features + feature] = value * scale);
  }
  return table;
}

function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

function addScaled(a: Float64Array, b: Float64Array, scale: number): void {
  a.forEach((_, i) => a[i] += scale * b[i]);
}

/** Numbers of a normal distribution (Box and Muller) over a counter that is mixed (Steele et al. 2014, 32-bit variant). */
function gaussian(seed: number): () => number {
  let counter = seed;
  const uniform = () => {
    counter = (counter + 0x9e3779b9) >>> 0;
    let mixed = counter;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
