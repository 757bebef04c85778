// Cases of the matmul with k split, and of what adds its sums.

import { matmul, type MatmulSpec, splitDecisions } from "../../wgsl/matmul.ts";
import { matmulReduce } from "../../wgsl/matmul_reduce.ts";
import { type KernelCase, randomArray, type Variant, widen } from "../harness/kernel_case.ts";
import { linearOracle, splitLinearOracle } from "../oracles/linear.ts";
import { linearData, linearParameters, type LinearShape, MODELS, repeated } from "./linear_matmul_cases.ts";

/** Sizes of a split call. */
interface SplitShape extends LinearShape {
  readonly splits: number;
}

/** Unwritten outputs hold this. */
const POISON = -0.71875;

const SHAPES: readonly SplitShape[] = [
  // More splits than stretches of 16: some parts are empty, and their sums zero.
  { rows: 1, k: 20, n: 1, splits: 5 },
  { rows: 33, k: 300, n: 67, splits: 7, inputStride: 304, outputStride: 75, outputOffset: 5, firstRow: 3 },
  { rows: 66, k: 128, n: 33, splits: 2, firstRow: 1 },
];

// Only without vectors.
const ODD_SHAPES: readonly SplitShape[] = [
  { rows: 2, k: 1, n: 3, splits: 2 },
  { rows: 65, k: 97, n: 35, splits: 3, inputStride: 99, outputStride: 37, outputOffset: 1, firstRow: 1 },
];

const TILES: readonly MatmulSpec["tile"][] = ["small", "lean", "medium"];

function nameOf(shape: object): string {
  return Object.entries(shape).map(([key, value]) => `${key} ${value}`).join(", ");
}

/** Weights read, rows read, sums written. */
function splitWork({ rows, k, n, splits }: SplitShape, dtype: "f16" | "f32"): KernelCase["work"] {
  return {
    flops: 2 * rows * k * n,
    bytes: n * k * (dtype === "f16" ? 2 : 4) + 4 * rows * (k + splits * n),
  };
}

/** Correctness cases of the split matmul. It knows no subgroups. */
export function splitCases({ dtype }: Variant): KernelCase[] {
  return TILES.flatMap((tile, i) =>
    [true, false].flatMap((vectorized) => {
      const kernel = matmul({ dtype, vectorized, epilogue: "split", tile });
      return (vectorized ? SHAPES : [...ODD_SHAPES, SHAPES[1]]).map((shape, j) => {
        const { splits } = shape;
        const parameters: Record<string, number> = { ...linearParameters(shape), splits };
        const { rows, k, n, inputStride, firstRow, outputStride, outputOffset } = parameters;
        return {
          family: "matmul",
          name: nameOf(shape),
          kernel,
          parameters,
          data: () => ({
            ...linearData({ dtype, epilogue: "none" }, shape, 7000 + 100 * i + 10 * j),
            // One row more, which must stay as it is.
            out: new Float32Array((splits * rows + 1) * outputStride).fill(POISON),
          }),
          expected: (data) => {
            const sums = splitLinearOracle(widen(data.x), widen(data.w), {
              rows,
              k,
              n,
              splits,
              inputStride,
              firstRow,
            });
            const out = widen(data.out);
            for (let row = 0; row < splits * rows; row++) {
              out.set(sums.subarray(row * n, (row + 1) * n), row * outputStride + outputOffset);
            }
            return { out };
          },
          tolerance: 1e-5,
          work: splitWork(shape, dtype),
        };
      });
    })
  );
}

/** Sizes of a sum over splits. */
interface ReduceShape {
  readonly splits: number;
  readonly rows: number;
  readonly n: number;
  /** Default: outputOffset + n. */
  readonly outputStride?: number;
  readonly outputOffset?: number;
}

function reduceCase(
  shape: ReduceShape,
  epilogue: "none" | "residual",
  name = nameOf(shape),
  bias = false,
): KernelCase {
  const { splits, rows, n, outputOffset = 0, outputStride = outputOffset + n } = shape;
  const size = (rows + 1) * outputStride;
  return {
    family: "matmulReduce",
    name,
    kernel: matmulReduce({ splits, epilogue, bias }),
    parameters: { rows, n, outputStride, outputOffset, firstBias: 3 },
    data: () => ({
      sums: randomArray(splits * rows * n, 8000 + splits),
      bias: randomArray(n + 3, 8200 + splits),
      residual: randomArray(size, 8100 + splits),
      out: new Float32Array(size).fill(POISON),
    }),
    expected: ({ sums, bias: added, residual, out }) => {
      const want = widen(out);
      for (let r = 0; r < rows; r++) {
        for (let j = 0; j < n; j++) {
          const at = r * outputStride + outputOffset + j;
          want[at] = (epilogue === "residual" ? residual[at] : 0) + (bias ? added[3 + j] : 0);
          for (let split = 0; split < splits; split++) want[at] += sums[(split * rows + r) * n + j];
        }
      }
      return { out: want };
    },
    tolerance: 1e-5,
    work: {
      flops: splits * rows * n,
      bytes: 4 * rows * n * (splits + (epilogue === "residual" ? 2 : 1)),
    },
  };
}

/** Correctness cases of matmulReduce. It knows neither subgroups nor storage types. */
export function reduceCases(): KernelCase[] {
  return (["none", "residual"] as const).flatMap((epilogue) => [
    reduceCase({ splits: 2, rows: 1, n: 1 }, epilogue),
    reduceCase({ splits: 2, rows: 13, n: 131, outputStride: 139, outputOffset: 5 }, epilogue),
    reduceCase({ splits: 7, rows: 3, n: 257 }, epilogue),
    reduceCase({ splits: 16, rows: 9, n: 64 }, epilogue),
    reduceCase({ splits: 3, rows: 5, n: 67, outputStride: 71, outputOffset: 2 }, epilogue, "bias", true),
  ]);
}

/** Calls of a batch's decode steps whose k is split: label, shape, epilogue and tile. */
const BATCHES = MODELS.flatMap(([label, k, n, kind]) =>
  [16, 32, 64, 128].map((rows) => {
    const gated = kind === "glu";
    const columns = gated ? 2 * n : n;
    const { tile, splits } = splitDecisions({ rows, k, n: columns });
    return {
      label: `${label}, rows ${rows}, k ${k}, n ${columns}, splits ${splits}`,
      shape: { rows, k, n: columns, splits },
      epilogue: gated ? "none" as const : kind,
      tile,
    };
  })
).filter(({ shape }) => shape.splits > 1);

/** Large cases of the split matmul: the first sums of the first row are checked. */
export function splitBench({ dtype }: Variant): KernelCase[] {
  return BATCHES.map(({ label, shape, tile }) => {
    const { rows, k, n, splits } = shape;
    const checked = 256;
    return {
      family: "matmul",
      name: label,
      kernel: matmul({ dtype, vectorized: true, epilogue: "split", tile }),
      parameters: { ...linearParameters(shape), splits },
      data: () => ({
        x: randomArray(rows * k, 1),
        w: repeated(n * k, 2, dtype),
        out: new Float32Array(splits * rows * n).fill(NaN),
      }),
      expected: (data) => {
        // The first part's numbers.
        const x = widen(data.x).subarray(0, k).fill(0, 16 * Math.floor(k / 16 / splits));
        const w = widen(data.w.subarray(0, checked * k));
        return { out: linearOracle(x, w, { rows: 1, k, n: checked }) };
      },
      tolerance: 1e-5,
      work: splitWork(shape, dtype),
    };
  });
}

/** Large cases of matmulReduce, one for each of {@linkcode splitBench}. */
export function reduceBench(): KernelCase[] {
  return BATCHES.map(({ label, shape, epilogue }) =>
    reduceCase(shape, epilogue === "residual" ? epilogue : "none", label)
  );
}
