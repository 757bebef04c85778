// Cases of the feature maps: every map, every rotation, what follows them, and inputs at the ends of f32.

import {
  FEATURE_MAPS,
  type FeatureMap,
  featureMap,
  mappedSize,
  type RotationLayout,
} from "../../wgsl/feature_map.ts";
import { angleTurns } from "../../wgsl/turns.ts";
import { ROW_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, randomArray, type Variant } from "../harness/kernel_case.ts";
import { featureMapOracle, rotationOracle } from "../oracles/linear_attention.ts";

interface FeatureCase {
  readonly name: string;
  readonly map: FeatureMap;
  readonly headSize: number;
  readonly heads?: number;
  readonly positions?: readonly number[];
  readonly x?: Float32Array;
  readonly householder?: boolean;
  readonly rotation?: RotationLayout;
  readonly perHead?: boolean;
  readonly restart?: number;
  readonly normalize?: boolean;
  readonly scale?: number;
  readonly zeroToken?: number;
}

/** Large enough for both ends of every map, with small ones between. */
function components(length: number, seed: number): Float32Array {
  return randomArray(length, seed, 3).map((value, i) =>
    i % 7 === 0 ? value * 1e-4 : i % 11 === 0 ? value * 5 : value
  );
}

/** Positions that want exact angles. */
export const FAR_POSITIONS: readonly number[] = [0, 1, 65535, 2 ** 20, 2 ** 24];

function caseOf(test: FeatureCase, subgroups: boolean): KernelCase {
  const { name, map, headSize, heads = 3, positions = [0, 5, 1000], rotation, perHead = false, restart = 0 } =
    test;
  const { householder = false, normalize = false, scale = 1, zeroToken } = test;
  const rows = positions.length;
  const width = heads * headSize;
  // The values are columns 1 ... of wider rows.
  const stride = width + 3;
  const mapped = mappedSize(headSize, map);
  const angles = rotation === "concat" ? mapped : mapped / 2;
  const thetas = Array.from(
    { length: angles * (perHead ? heads : 1) },
    (_, i) => i === 0 ? 1 : i === 1 ? -3.7 : 10000 ** (-i / angles),
  );
  const x = test.x ?? components(rows * width, headSize);
  const raw = Float64Array.from(randomArray(mapped, 5));
  const length = Math.sqrt(raw.reduce((sum, value) => sum + value * value, 0));
  const v = Float32Array.from(raw, (value) => value / length);
  const token = (row: number) => row % 2 === 0 ? 7 : 8;
  return {
    family: "featureMap",
    name,
    kernel: featureMap({
      headSize,
      map,
      householder,
      ...(rotation ? { rotation, perHead } : {}),
      normalize,
      zeroes: zeroToken !== undefined,
      subgroups,
    }),
    parameters: { rows, heads, stride, offset: 1, restart, zeroToken: zeroToken ?? 0, scale },
    data: () => {
      const wide = new Float32Array(rows * stride).fill(NaN);
      const table = new Uint32Array(rows * ROW_WORDS);
      positions.forEach((position, row) => {
        wide.set(x.subarray(row * width, (row + 1) * width), row * stride + 1);
        table.set([token(row), 0, position, row], row * ROW_WORDS);
      });
      return {
        x: wide,
        rowTable: table,
        reflection: v,
        turns: angleTurns(thetas),
        out: new Float32Array(rows * heads * mapped * (rotation === "concat" ? 2 : 1)).fill(NaN),
      };
    },
    expected: () => ({
      out: Float64Array.from(
        positions.flatMap((position, row) =>
          Array.from({ length: heads }, (_, head) => {
            const first = row * width + head * headSize;
            let features = featureMapOracle(map, [...x.subarray(first, first + headSize)]);
            if (householder) {
              const product = features.reduce((sum, value, i) => sum + value * v[i], 0);
              features = features.map((value, i) => value - 2 * product * v[i]);
            }
            if (rotation) {
              const own = perHead ? thetas.slice(head * angles, (head + 1) * angles) : thetas;
              features = rotationOracle(rotation, features, own, restart ? position % restart : position);
            }
            const squares = features.reduce((sum, value) => sum + value * value, 0);
            const factor = scale / (normalize ? Math.sqrt(squares + 1e-6) : 1);
            return features.map((value) => token(row) === zeroToken ? 0 : value * factor);
          }).flat()
        ),
      ),
    }),
    tolerance: 1e-6,
    work: { flops: rows * width, bytes: 8 * rows * width },
  };
}

/** Components at the ends of f32, one head of four each. */
function extremes(map: FeatureMap): Float32Array {
  const huge = map === "squared-relu" ? 1e18 : 1e30;
  return Float32Array.of(-huge, huge, 0, -0, -huge, -huge, -huge, -huge, 88.9, -88.9, -104, 1e-30);
}

/** All cases of a variant. */
export function cases({ subgroups }: Variant): KernelCase[] {
  const list: FeatureCase[] = [
    ...FEATURE_MAPS.map((map): FeatureCase => ({ name: map, map, headSize: 36 })),
    ...FEATURE_MAPS.filter((map) => map !== "sine").map((map): FeatureCase => ({
      name: `${map} of the largest and smallest numbers`,
      map,
      headSize: 4,
      positions: [0],
      x: extremes(map),
    })),
    // As 1 + (exp(x) - 1) these would have no digits left.
    { name: "small features", map: "1+elu", headSize: 8, x: randomArray(72, 1).map((value) => value - 14) },
    { name: "numbers near 0", map: "elu", headSize: 8, x: randomArray(72, 1, 1e-3) },
    { name: "head of 1", map: "1+elu", headSize: 1 },
    { name: "head of 7", map: "softmax", headSize: 7, scale: -0.5 },
    {
      name: "head of 256, all of it",
      map: "hedgehog",
      headSize: 256,
      heads: 1,
      rotation: "concat",
      normalize: true,
    },
    {
      name: "far positions, pairs side by side",
      map: "identity",
      headSize: 8,
      rotation: "interleaved",
      positions: FAR_POSITIONS,
    },
    {
      name: "far positions, halves, by head",
      map: "identity",
      headSize: 10,
      rotation: "half",
      perHead: true,
      positions: FAR_POSITIONS,
    },
    {
      name: "far positions, cosines and sines by head",
      map: "silu",
      headSize: 5,
      rotation: "concat",
      perHead: true,
      positions: FAR_POSITIONS,
    },
    {
      name: "a reflection, positions that restart, a length of 1",
      map: "hedgehog",
      headSize: 6,
      householder: true,
      rotation: "half",
      restart: 64,
      normalize: true,
      scale: 0.25,
      positions: [63, 64, 65, 1000],
    },
    {
      name: "a reflection, rows of a pad",
      map: "1+elu",
      headSize: 8,
      householder: true,
      rotation: "interleaved",
      zeroToken: 8,
    },
  ];
  return list.map((test) => caseOf(test, subgroups));
}
