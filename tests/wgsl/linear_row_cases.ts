// Cases of the kernels around matmuls: embedding, norms, sums, SwiGLU, gathers.

import { add } from "../../wgsl/add.ts";
import { embedding, type EmbeddingSpec } from "../../wgsl/embedding.ts";
import { gatherRows } from "../../wgsl/gather_rows.ts";
import { rmsNorm, type RmsNormSpec } from "../../wgsl/rms_norm.ts";
import { swiglu } from "../../wgsl/swiglu.ts";
import { NONE, ROW_WORDS, STATE_WORDS } from "../../wgsl/tables.ts";
import { workgroupThreads } from "../../wgsl/threads.ts";
import { type KernelCase, randomArray, store, type Variant, widen } from "../harness/kernel_case.ts";
import { gatherRowsOracle, rmsNormOracle, swigluOracle } from "../oracles/linear.ts";

/** Unwritten outputs hold this; small, so that it does not widen the tolerance. */
const POISON = -0.71875;
const EPS = 1e-5;

/** Outputs with some more behind them that must stay as they are. */
function poisoned(length: number, behind = 5): Float32Array {
  return new Float32Array(length + behind).fill(POISON);
}

/** What the kernel must leave in `out`: its results, and the poison behind. */
function withPoison(values: Float64Array, length: number): Float64Array {
  const out = new Float64Array(length).fill(POISON);
  out.set(values);
  return out;
}

/** Integers below `limit`, the same each time. */
function randomIntegers(length: number, seed: number, limit: number): Uint32Array {
  return Uint32Array.from(randomArray(length, seed), (value) => Math.floor((value + 1) / 2 * limit));
}

interface EmbeddingShape {
  readonly rows: number;
  readonly width: number;
  readonly ids: number;
  readonly firstId: number;
  readonly idCount: number;
}

function embeddingCase(spec: EmbeddingSpec, shape: EmbeddingShape, seed: number): KernelCase {
  const { rows, width, ids, firstId, idCount } = shape;
  const sequences = rows + 2;
  const scale = spec.scale ? 11.3125 : 1;
  return {
    family: "embedding",
    name: Object.entries(shape).map(([key, value]) => `${key} ${value}`).join(", "),
    kernel: embedding(spec),
    parameters: { rows, width, firstId, idCount, scale },
    data: () => {
      const rowTable = randomIntegers(rows * ROW_WORDS, seed, ids);
      const states = randomIntegers(sequences * STATE_WORDS, seed + 1, ids);
      // Sequences run backwards, so that none has the index of its row.
      for (let r = 0; r < rows; r++) rowTable[r * ROW_WORDS + 1] = sequences - 1 - r;
      if (rows > 1) {
        // A row without a token, and the largest id of the part.
        rowTable[0] = states[(sequences - 1) * STATE_WORDS + 2] = NONE;
        rowTable[ROW_WORDS] = states[(sequences - 2) * STATE_WORDS + 2] = firstId + idCount - 1;
      }
      return {
        rowTable,
        states,
        table: store(randomArray(idCount * width, seed + 2), spec.dtype),
        out: poisoned(rows * width),
      };
    },
    expected: (data): Record<string, Float64Array | Uint32Array> => {
      const rowTable = Uint32Array.from(data.rowTable);
      const out = widen(data.out);
      const table = widen(data.table);
      for (let r = 0; r < rows; r++) {
        if (spec.fromState) {
          const state = rowTable[r * ROW_WORDS + 1] * STATE_WORDS;
          rowTable[r * ROW_WORDS] = data.states[state + 2];
          rowTable[r * ROW_WORDS + 2] = data.states[state + 1];
        }
        const id = rowTable[r * ROW_WORDS] - firstId;
        if (id < 0 || id >= idCount) continue;
        for (let i = 0; i < width; i++) out[r * width + i] = table[id * width + i] * scale;
      }
      return spec.fromState ? { out, rowTable } : { out };
    },
    tolerance: 1e-6,
    work: {
      flops: rows * width,
      bytes: rows * width * (spec.dtype === "f16" ? 6 : 8),
    },
  };
}

function embeddingCases({ dtype }: Variant): KernelCase[] {
  const whole = { ids: 50, firstId: 0, idCount: 50 };
  const middle = { ids: 50, firstId: 17, idCount: 19 };
  return [
    embeddingCase({ dtype, vectorized: true, fromState: false }, { rows: 13, width: 260, ...middle }, 1),
    embeddingCase({ dtype, vectorized: true, fromState: true }, { rows: 13, width: 64, ...middle }, 5),
    embeddingCase({ dtype, vectorized: false, fromState: false, scale: true }, {
      rows: 7,
      width: 67,
      ...whole,
    }, 9),
    embeddingCase(
      { dtype, vectorized: false, fromState: true, scale: true },
      { rows: 1, width: 1, ...whole },
      13,
    ),
    embeddingCase({ dtype, vectorized: false, fromState: true, scale: true }, {
      rows: 9,
      width: 5,
      ...middle,
    }, 17),
  ];
}

function rmsNormCase(spec: RmsNormSpec, rows: number, width: number, seed: number, scale = 1): KernelCase {
  return {
    family: "rmsNorm",
    name: `rows ${rows}, width ${width}, scale ${scale}`,
    kernel: rmsNorm(spec),
    parameters: { rows, width, eps: EPS },
    data: () => ({
      x: randomArray(rows * width, seed, scale),
      weight: randomArray(width, seed + 1),
      out: poisoned(rows * width),
    }),
    expected: (data) => {
      const weight = spec.affine ? widen(data.weight) : undefined;
      const out = rmsNormOracle(widen(data.x), weight, { rows, width, eps: EPS });
      return { out: withPoison(out, data.out.length) };
    },
    tolerance: 1e-5,
    work: { flops: 4 * rows * width, bytes: 8 * rows * width },
  };
}

function rmsNormCases({ subgroups }: Variant): KernelCase[] {
  return [
    rmsNormCase({ subgroups, vectorized: false, affine: true, threads: 32 }, 1, 1, 101),
    rmsNormCase({ subgroups, vectorized: false, affine: true, threads: 32 }, 5, 97, 103, 1e-4),
    rmsNormCase({ subgroups, vectorized: false, affine: false, threads: 128 }, 3, 1031, 105, 1e4),
    rmsNormCase({ subgroups, vectorized: true, affine: false, threads: 64 }, 7, 132, 107),
    rmsNormCase({ subgroups, vectorized: true, affine: true, threads: 256 }, 2, 16384, 109),
    rmsNormCase({ subgroups, vectorized: true, affine: true, threads: 256 }, 3, 4, 111),
  ];
}

function swigluCase(rows: number, width: number, seed: number, scale = 1): KernelCase {
  return {
    family: "swiglu",
    name: `rows ${rows}, width ${width}, scale ${scale}`,
    kernel: swiglu(),
    parameters: { rows, width },
    data: () => {
      const x = randomArray(2 * rows * width, seed);
      // Only gates are large, so that every output counts.
      x.forEach((value, i) => x[i] = i % (2 * width) < width ? scale * value : value);
      return { x, out: poisoned(rows * width) };
    },
    expected: (data) => ({ out: withPoison(swigluOracle(widen(data.x), rows, width), data.out.length) }),
    tolerance: 1e-5,
    work: { flops: 5 * rows * width, bytes: 12 * rows * width },
  };
}

function addCase(count: number, seed: number): KernelCase {
  return {
    family: "add",
    name: `count ${count}`,
    kernel: add(),
    parameters: { count },
    data: () => ({ a: randomArray(count, seed), b: randomArray(count, seed + 1), out: poisoned(count) }),
    expected: (data) => {
      const b = widen(data.b);
      return { out: withPoison(widen(data.a).map((value, i) => value + b[i]), data.out.length) };
    },
    tolerance: 1e-6,
    work: { flops: count, bytes: 12 * count },
  };
}

function gatherRowsCase(
  rows: number,
  width: number,
  from: number,
  seed: number,
  { stride = width, offset = 0 }: { stride?: number; offset?: number } = {},
): KernelCase {
  return {
    family: "gatherRows",
    name: `rows ${rows} of ${from}, columns ${offset} to ${offset + width} of ${stride}`,
    kernel: gatherRows(),
    parameters: { rows, width, stride, offset },
    data: () => ({
      x: randomArray(from * stride, seed),
      map: randomIntegers(rows, seed + 1, from),
      out: poisoned(rows * width),
    }),
    expected: (data) => ({
      out: withPoison(
        gatherRowsOracle(widen(data.x), data.map, width, { stride, offset }),
        data.out.length,
      ),
    }),
    tolerance: 0,
    work: { flops: 0, bytes: 8 * rows * width },
  };
}

/** Correctness cases. Over 65,535 rows fold the grid. */
export function rowCases(variant: Variant): KernelCase[] {
  return [
    ...embeddingCases(variant),
    ...rmsNormCases(variant),
    swigluCase(1, 1, 301),
    swigluCase(7, 131, 303, 30),
    swigluCase(3, 344, 305, 200),
    swigluCase(2, 64, 307, 1e4),
    addCase(1, 401),
    addCase(2053, 403),
    gatherRowsCase(1, 1, 1, 501),
    gatherRowsCase(37, 29, 11, 503),
    gatherRowsCase(5, 16, 7, 505, { stride: 61, offset: 13 }),
    gatherRowsCase(70, 3, 2, 507, { stride: 5, offset: 2 }),
  ];
}

/** Large cases for a GPU. */
export function rowBench(variant: Variant): KernelCase[] {
  const { dtype, subgroups } = variant;
  const ids = { ids: 32000, firstId: 0, idCount: 32000 };
  return [
    embeddingCase({ dtype, vectorized: true, fromState: true }, { rows: 1, width: 2048, ...ids }, 1),
    embeddingCase({ dtype, vectorized: true, fromState: false }, { rows: 512, width: 2048, ...ids }, 5),
    ...([[1, 2048], [512, 2048], [512, 4096]] as const).map(([rows, width]) =>
      rmsNormCase(
        { subgroups, vectorized: true, affine: true, threads: workgroupThreads(width / 4) },
        rows,
        width,
        9,
      )
    ),
    swigluCase(512, 8192, 11),
    swigluCase(512, 14336, 13),
    addCase(512 * 4096, 15),
    gatherRowsCase(256, 4096, 512, 17),
  ];
}
