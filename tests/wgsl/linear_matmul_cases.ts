// Cases of matvec and matmul: the same call, so one builder.

import type { Activation } from "../../wgsl/activations.ts";
import type { Kernel } from "../../wgsl/kernel.ts";
import { matmul, type MatmulSpec } from "../../wgsl/matmul.ts";
import { matvec, matvecDecisions, type MatvecSpec } from "../../wgsl/matvec.ts";
import { type KernelCase, randomArray, store, type Variant, widen } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import { activationOracle, linearOracle, rmsNormOracle } from "../oracles/linear.ts";

/** Sizes of a call; strides and offsets are at their tightest unless given. */
export interface LinearShape {
  readonly rows: number;
  readonly k: number;
  readonly n: number;
  /** Default: k. */
  readonly inputStride?: number;
  /** Default: outputOffset + n. */
  readonly outputStride?: number;
  readonly outputOffset?: number;
  readonly firstRow?: number;
  /** Factor on the weights, to reach f16's subnormal numbers. Default: 1. */
  readonly weightScale?: number;
  /** Factor on x, to reach the ends of silu and inputs smaller than eps. Default: 1. */
  readonly inputScale?: number;
}

/** What the kernel of a case computes. */
export interface LinearOptions {
  readonly dtype: "f16" | "f32";
  readonly norm?: boolean;
  readonly affine?: boolean;
  readonly bias?: boolean;
  readonly epilogue: "none" | "residual" | "glu";
  readonly activation?: Activation;
}

/** Unwritten outputs hold this; small, so that it does not widen the tolerance. */
const POISON = -0.71875;
const EPS = 1e-5;

/** Parameters of a call with all defaults filled in; takes the weight rows of `up` behind those of the gate. */
export function linearParameters(shape: LinearShape): Record<string, number> {
  const { rows, k, n, inputStride = k, outputOffset = 0, outputStride = outputOffset + n, firstRow = 0 } =
    shape;
  const upRow = firstRow + n + 1;
  const bias = { firstBias: 2, upBias: n + 3 };
  return { rows, k, n, inputStride, outputStride, outputOffset, firstRow, upRow, ...bias, eps: EPS };
}

/** Host data of a call. */
export function linearData(
  options: LinearOptions,
  shape: LinearShape,
  seed: number,
): Record<string, HostArray> {
  const { rows, k, n, inputStride, outputStride, firstRow, upRow } = linearParameters(shape);
  const weightRows = options.epilogue === "glu" ? upRow + n : firstRow + n;
  // One row more, which must stay as it is.
  const size = (rows + 1) * outputStride;
  return {
    x: randomArray((rows - 1) * inputStride + k, seed, shape.inputScale),
    w: store(randomArray(weightRows * k, seed + 1, shape.weightScale), options.dtype),
    normWeight: randomArray(k, seed + 2),
    bias: randomArray(2 * n + 3, seed + 4),
    residual: randomArray(size, seed + 3),
    out: new Float32Array(size).fill(POISON),
  };
}

function linearExpected(
  options: LinearOptions,
  shape: LinearShape,
  data: Record<string, HostArray>,
): Record<string, Float64Array> {
  const { rows, k, n, inputStride, outputStride, outputOffset, firstRow, upRow, firstBias, upBias } =
    linearParameters(shape);
  let x = widen(data.x);
  let stride = inputStride;
  if (options.norm) {
    const weight = options.affine === false ? undefined : widen(data.normWeight);
    x = rmsNormOracle(x, weight, { rows, width: k, stride, eps: EPS });
    stride = k;
  }
  const w = widen(data.w);
  const dots = linearOracle(x, w, { rows, k, n, inputStride: stride, firstRow });
  const ups = options.epilogue === "glu"
    ? linearOracle(x, w, { rows, k, n, inputStride: stride, firstRow: upRow })
    : undefined;
  const out = widen(data.out);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < n; j++) {
      const at = r * outputStride + outputOffset + j;
      const dot = dots[r * n + j] + (options.bias ? data.bias[firstBias + j] : 0);
      out[at] = ups
        ? activationOracle(options.activation ?? "silu", dot) *
          (ups[r * n + j] + (options.bias ? data.bias[upBias + j] : 0))
        : options.epilogue === "residual"
        ? dot + data.residual[at]
        : dot;
    }
  }
  return { out };
}

function linearCase(
  family: string,
  kernel: Kernel,
  options: LinearOptions,
  shape: LinearShape,
  seed: number,
): KernelCase {
  const { rows, k, n } = shape;
  const matrices = options.epilogue === "glu" ? 2 : 1;
  return {
    family,
    name: Object.entries(shape).map(([key, value]) => `${key} ${value}`).join(", "),
    kernel,
    parameters: linearParameters(shape),
    data: () => linearData(options, shape, seed),
    expected: (data) => linearExpected(options, shape, data),
    tolerance: 1e-5,
    work: {
      flops: 2 * matrices * rows * k * n,
      bytes: matrices * n * k * (options.dtype === "f16" ? 2 : 4) + 4 * rows * (k + n),
    },
  };
}

// Every rowsPerPass, epilogue, size of load and of workgroup occurs with and without norm.
const MATVECS: readonly Omit<MatvecSpec, "dtype" | "subgroups">[] = [
  { vector: 1, rowsPerPass: 1, norm: false, epilogue: "none", threads: 32, columns: 1 },
  { vector: 1, rowsPerPass: 2, norm: true, epilogue: "glu", threads: 64, columns: 4 },
  { vector: 1, rowsPerPass: 4, norm: true, epilogue: "none", threads: 256, columns: 2 },
  { vector: 1, rowsPerPass: 8, norm: false, epilogue: "residual", threads: 128, columns: 4 },
  { vector: 4, rowsPerPass: 1, norm: false, epilogue: "residual", threads: 256, columns: 8 },
  { vector: 4, rowsPerPass: 2, norm: true, epilogue: "none", threads: 32, columns: 4 },
  { vector: 4, rowsPerPass: 4, norm: false, epilogue: "glu", threads: 32, columns: 1 },
  { vector: 4, rowsPerPass: 8, norm: true, epilogue: "residual", threads: 64, columns: 2 },
  { vector: 8, rowsPerPass: 1, norm: true, epilogue: "glu", threads: 32, columns: 4 },
  { vector: 8, rowsPerPass: 2, norm: false, epilogue: "none", threads: 64, columns: 8 },
  { vector: 8, rowsPerPass: 4, norm: true, epilogue: "residual", threads: 128, columns: 4 },
  { vector: 8, rowsPerPass: 8, norm: true, epilogue: "none", threads: 32, columns: 2 },
  // Biases, norms without a weight, other activations.
  { vector: 1, rowsPerPass: 2, norm: false, bias: true, epilogue: "residual", threads: 32, columns: 4 },
  {
    vector: 4,
    rowsPerPass: 1,
    norm: true,
    affine: false,
    bias: true,
    epilogue: "none",
    threads: 32,
    columns: 4,
  },
  { vector: 4, rowsPerPass: 8, norm: true, affine: false, epilogue: "residual", threads: 64, columns: 2 },
  {
    vector: 4,
    rowsPerPass: 4,
    norm: true,
    affine: false,
    bias: true,
    epilogue: "glu",
    activation: "gelu",
    threads: 32,
    columns: 2,
  },
  {
    vector: 8,
    rowsPerPass: 2,
    norm: true,
    affine: false,
    epilogue: "glu",
    activation: "identity",
    threads: 64,
    columns: 4,
  },
];

const MATVEC_SHAPES: Readonly<Record<1 | 4 | 8, readonly LinearShape[]>> = {
  1: [
    { rows: 1, k: 1, n: 1 },
    { rows: 1, k: 131, n: 33, inputStride: 133 },
    { rows: 9, k: 97, n: 7, inputStride: 98, outputStride: 17, outputOffset: 3, firstRow: 2 },
    { rows: 3, k: 517, n: 5, firstRow: 1 },
    { rows: 2, k: 13, n: 3, inputScale: 1e-3 },
  ],
  4: [
    { rows: 1, k: 4, n: 1 },
    { rows: 11, k: 132, n: 13, inputStride: 140, outputStride: 19, outputOffset: 5, firstRow: 3 },
    { rows: 5, k: 1028, n: 9 },
    { rows: 2, k: 352, n: 37, weightScale: 1e-5 },
    { rows: 2, k: 64, n: 11, inputScale: 1e4 },
    { rows: 2, k: 64, n: 3, inputScale: 1e-3 },
  ],
  8: [
    { rows: 1, k: 8, n: 1 },
    { rows: 11, k: 136, n: 13, inputStride: 144, outputStride: 19, outputOffset: 5, firstRow: 3 },
    { rows: 5, k: 1032, n: 9 },
    { rows: 2, k: 352, n: 37, weightScale: 1e-5 },
    { rows: 2, k: 64, n: 11, inputScale: 1e4 },
    { rows: 2, k: 64, n: 3, inputScale: 1e-3 },
  ],
};

/** Correctness cases of matvec. */
export function matvecCases(variant: Variant): KernelCase[] {
  return MATVECS.filter(({ vector }) => vector < 8 || variant.dtype === "f16").flatMap((decisions, i) => {
    const spec = { ...decisions, ...variant };
    const kernel = matvec(spec);
    return MATVEC_SHAPES[spec.vector].map((shape, j) =>
      linearCase("matvec", kernel, spec, shape, 1000 + 100 * i + 10 * j)
    );
  });
}

const MATMULS: readonly (Omit<MatmulSpec, "dtype"> & Pick<LinearOptions, "epilogue">)[] = [
  { vectorized: true, epilogue: "none", tile: "small" },
  { vectorized: true, epilogue: "none", tile: "lean" },
  { vectorized: true, epilogue: "none", tile: "medium" },
  { vectorized: true, epilogue: "residual", tile: "small" },
  { vectorized: true, epilogue: "residual", tile: "lean" },
  { vectorized: true, epilogue: "residual", tile: "medium" },
  { vectorized: false, epilogue: "none", tile: "small" },
  { vectorized: false, epilogue: "none", tile: "lean" },
  { vectorized: false, epilogue: "none", tile: "medium" },
  { vectorized: false, epilogue: "residual", tile: "small" },
  { vectorized: false, epilogue: "residual", tile: "lean" },
  { vectorized: false, epilogue: "residual", tile: "medium" },
  { vectorized: true, bias: true, epilogue: "none", tile: "small" },
  { vectorized: true, bias: true, epilogue: "residual", tile: "medium" },
  { vectorized: false, bias: true, epilogue: "none", tile: "lean" },
];

const MATMUL_SHAPES: readonly LinearShape[] = [
  { rows: 1, k: 4, n: 1 },
  { rows: 31, k: 20, n: 33 },
  { rows: 129, k: 36, n: 131, inputStride: 40, outputStride: 139, outputOffset: 5, firstRow: 3 },
  { rows: 65, k: 128, n: 64, firstRow: 1 },
  { rows: 67, k: 4, n: 257, weightScale: 1e-5 },
];

// Only without vectors.
const ODD_SHAPES: readonly LinearShape[] = [
  { rows: 2, k: 1, n: 3 },
  { rows: 33, k: 17, n: 67, inputStride: 19, outputStride: 71, outputOffset: 1, firstRow: 1 },
  { rows: 130, k: 97, n: 5 },
];

/** Correctness cases of matmul. It knows no subgroups. */
export function matmulCases(variant: Variant): KernelCase[] {
  return MATMULS.flatMap((decisions, i) => {
    const spec = { ...decisions, dtype: variant.dtype };
    const kernel = matmul(spec);
    const shapes = spec.vectorized ? MATMUL_SHAPES : [...ODD_SHAPES, MATMUL_SHAPES[2]];
    return shapes.map((shape, j) => linearCase("matmul", kernel, spec, shape, 5000 + 100 * i + 10 * j));
  });
}

/** Large host arrays repeat a random block whose length divides no row. */
export function repeated(length: number, seed: number, dtype: "f16" | "f32"): HostArray {
  const block = store(randomArray(Math.min(length, 1000003), seed, 0.1), dtype);
  if (block.length === length) return block;
  const out = dtype === "f16" ? new Uint16Array(length) : new Float32Array(length);
  for (let at = 0; at < length; at += block.length) {
    out.set(block.subarray(0, Math.min(block.length, length - at)), at);
  }
  return out;
}

/** As {@linkcode linearCase}, but for large weights: the first outputs of the first row are checked. */
function benchCase(
  family: string,
  kernel: Kernel,
  options: LinearOptions,
  shape: LinearShape,
  label: string,
): KernelCase {
  const { rows, k, n } = shape;
  const gated = options.epilogue === "glu";
  const checked = Math.min(n, 256);
  return {
    ...linearCase(family, kernel, options, shape, 1),
    name: `${label}, rows ${rows}, k ${k}, n ${n}`,
    parameters: { ...linearParameters(shape), upRow: n },
    data: () => ({
      x: randomArray(rows * k, 1),
      w: repeated((gated ? 2 : 1) * n * k, 2, options.dtype),
      normWeight: randomArray(k, 3),
      residual: randomArray(rows * n, 4),
      out: new Float32Array(rows * n).fill(NaN),
    }),
    expected: (data) => {
      let x = widen(data.x).subarray(0, k);
      if (options.norm) x = rmsNormOracle(x, widen(data.normWeight), { rows: 1, width: k, eps: EPS });
      const part = (first: number): Float64Array =>
        linearOracle(x, widen(data.w.subarray(first * k, (first + checked) * k)), { rows: 1, k, n: checked });
      let out = part(0);
      if (gated) {
        const up = part(n);
        out = out.map((gate, j) => activationOracle("silu", gate) * up[j]);
      }
      if (options.epilogue === "residual") out = out.map((dot, j) => dot + data.residual[j]);
      return { out };
    },
  };
}

/** Shapes of real models: what the weight is, its columns and its rows. */
export const MODELS: readonly (readonly [string, number, number, LinearOptions["epilogue"], boolean])[] = [
  ["1B qkv", 2048, 3072, "none", true],
  ["1B output", 2048, 2048, "residual", false],
  ["1B gate and up", 2048, 8192, "glu", true],
  ["1B down", 8192, 2048, "residual", false],
  ["1B head", 2048, 128256, "none", true],
  ["8B qkv", 4096, 6144, "none", true],
  ["8B output", 4096, 4096, "residual", false],
  ["8B gate and up", 4096, 14336, "glu", true],
  ["8B down", 14336, 4096, "residual", false],
];

/** Large cases of matvec: rows 1 and 8, and other decisions beside the chosen ones. */
export function matvecBench(variant: Variant): KernelCase[] {
  const vector = variant.dtype === "f16" ? 8 : 4;
  return MODELS.flatMap(([label, k, n, epilogue, norm]) =>
    ([1, 8] as const).flatMap((rowsPerPass) => {
      const chosen = matvecDecisions({ k, vector, rowsPerPass, epilogue });
      const all = [chosen];
      for (const columns of [2, 4, 8] as const) {
        for (const threads of [128, 256]) {
          const known = columns === chosen.columns && threads === chosen.threads;
          if (!known && (rowsPerPass === 1 || columns < 8)) all.push({ columns, threads });
        }
      }
      return all.map((decisions) => {
        const spec = { ...variant, vector, rowsPerPass, norm, epilogue, ...decisions } as const;
        return benchCase("matvec", matvec(spec), spec, { rows: rowsPerPass, k, n }, label);
      });
    })
  );
}

/** Large cases of matmul: a short and a long prompt. */
export function matmulBench(variant: Variant): KernelCase[] {
  return MODELS.filter(([label]) => label !== "1B head").flatMap(([label, k, n, kind]) =>
    ([[32, "small"], [128, "small"], [128, "medium"], [512, "medium"], [2048, "medium"]] as const).map(
      ([rows, tile]) => {
        const gated = kind === "glu";
        const spec = {
          dtype: variant.dtype,
          vectorized: true,
          epilogue: gated ? "none" : kind,
          tile,
        } as const;
        return benchCase("matmul", matmul(spec), spec, { rows, k, n: gated ? 2 * n : n }, label);
      },
    )
  );
}
