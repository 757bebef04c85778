// Cases of the kernels around matmuls: embedding, norms, sums, gated linear units, gathers.

import { add } from "../../wgsl/add.ts";
import { type Activation, ACTIVATIONS } from "../../wgsl/activations.ts";
import { embedding, type EmbeddingSpec } from "../../wgsl/embedding.ts";
import { glu } from "../../wgsl/glu.ts";
import { gatherRows } from "../../wgsl/gather_rows.ts";
import { normRows, type NormRowsSpec } from "../../wgsl/norm_rows.ts";
import { NONE, ROW_WORDS, STATE_WORDS } from "../../wgsl/tables.ts";
import { workgroupThreads } from "../../wgsl/threads.ts";
import { type KernelCase, randomArray, store, type Variant, widen } from "../harness/kernel_case.ts";
import { activationOracle, gatherRowsOracle, normRowsOracle } from "../oracles/linear.ts";

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

interface NormShape {
  readonly rows: number;
  /** Of a part. */
  readonly width: number;
  readonly groups?: number;
  /** Whether weight and bias hold for all parts alike. */
  readonly shared?: boolean;
  readonly scale?: number;
  /** Added to x. */
  readonly shift?: number;
}

function normCase(spec: NormRowsSpec, shape: NormShape, seed: number): KernelCase {
  const { rows, width, groups = 1, shared = false, scale = 1, shift = 0 } = shape;
  const parameters = shared ? width : groups * width;
  return {
    family: `${spec.kind}Norm`,
    name: Object.entries(shape).map(([key, value]) => `${key} ${value}`).join(", "),
    kernel: normRows(spec),
    parameters: { rows, width, groups, gainStride: shared ? 0 : width, eps: EPS },
    data: () => ({
      x: randomArray(rows * groups * width, seed, scale).map((value) => value + shift),
      weight: randomArray(parameters, seed + 1),
      bias: randomArray(parameters, seed + 2),
      out: poisoned(rows * groups * width),
    }),
    expected: (data) => {
      const out = normRowsOracle(widen(data.x), {
        rows,
        width: groups * width,
        kind: spec.kind,
        epsilon: EPS,
        additive: spec.additive,
        groups,
        weight: spec.affine ? widen(data.weight) : undefined,
        bias: spec.bias ? widen(data.bias) : undefined,
      });
      return { out: withPoison(out, data.out.length) };
    },
    tolerance: 1e-5,
    work: { flops: 4 * rows * groups * width, bytes: 8 * rows * groups * width },
  };
}

function normCases({ subgroups }: Variant): KernelCase[] {
  const rms = { kind: "rms", subgroups } as const;
  const layer = { kind: "layer", subgroups } as const;
  const scalar = { vectorized: false, threads: 32 };
  const vector = { vectorized: true, threads: 64 };
  return [
    normCase({ ...rms, ...scalar, affine: true }, { rows: 1, width: 1 }, 101),
    normCase({ ...rms, ...scalar, affine: true }, { rows: 5, width: 97, scale: 1e-4 }, 104),
    normCase({ ...rms, ...scalar, affine: false, threads: 128 }, { rows: 3, width: 1031, scale: 1e4 }, 107),
    normCase({ ...rms, ...vector, affine: false }, { rows: 7, width: 132 }, 110),
    normCase({ ...rms, ...vector, affine: true, threads: 256 }, { rows: 2, width: 16384 }, 113),
    normCase({ ...rms, ...vector, affine: true, threads: 256 }, { rows: 3, width: 4 }, 116),
    // Additive eps: near zero it alone decides.
    normCase({ ...rms, ...scalar, additive: true, affine: false }, { rows: 3, width: 37, scale: 1e-5 }, 119),
    normCase({ ...rms, ...vector, additive: true, affine: false }, { rows: 2, width: 132 }, 122),
    // By heads, with parameters of each and of all.
    normCase({ ...rms, ...vector, affine: false, threads: 32 }, { rows: 5, width: 12, groups: 7 }, 125),
    normCase({ ...rms, ...vector, affine: true }, { rows: 3, width: 16, groups: 3, shared: true }, 128),
    normCase({ ...rms, ...scalar, affine: true, bias: true }, { rows: 3, width: 5, groups: 3 }, 131),
    normCase({ ...layer, ...scalar, affine: false }, { rows: 2, width: 1 }, 134),
    normCase({ ...layer, ...scalar, affine: true, bias: true }, { rows: 5, width: 97 }, 137),
    normCase({ ...layer, ...vector, affine: true, bias: true }, { rows: 3, width: 1028 }, 140),
    normCase({ ...layer, ...vector, affine: false }, { rows: 3, width: 8, groups: 5 }, 143),
    normCase({ ...layer, ...scalar, additive: true, affine: true }, { rows: 2, width: 61, groups: 2 }, 146),
    // A mean far larger than the deviation.
    normCase({ ...layer, ...vector, affine: false }, { rows: 2, width: 256, shift: 64 }, 149),
  ];
}

/** Places of the gate's and the up projection's columns; without them they stand side by side. */
interface GluShape {
  readonly rows: number;
  readonly width: number;
  readonly stride?: number;
  readonly gateOffset?: number;
  readonly upOffset?: number;
}

function gluCase(activation: Activation, shape: GluShape, seed: number, scale = 1): KernelCase {
  const { rows, width, stride = 2 * width, gateOffset = 0, upOffset = width } = shape;
  return {
    family: "glu",
    name: `${Object.entries(shape).map(([key, value]) => `${key} ${value}`).join(", ")}, scale ${scale}`,
    kernel: glu(activation),
    parameters: { rows, width, gateStride: stride, gateOffset, upStride: stride, upOffset },
    data: () => ({
      // Only gates are large, so that every output counts.
      gate: randomArray(rows * stride, seed, scale),
      up: randomArray(rows * stride, seed + 1),
      out: poisoned(rows * width),
    }),
    expected: ({ gate, up, out }) => {
      const want = new Float64Array(rows * width);
      for (let i = 0; i < rows * width; i++) {
        const at = Math.floor(i / width) * stride + i % width;
        want[i] = activationOracle(activation, gate[at + gateOffset]) * up[at + upOffset];
      }
      return { out: withPoison(want, out.length) };
    },
    tolerance: 1e-5,
    work: { flops: 5 * rows * width, bytes: 12 * rows * width },
  };
}

function gluCases(): KernelCase[] {
  return [
    ...ACTIVATIONS.flatMap((activation, i) => [
      gluCase(activation, { rows: 7, width: 131 }, 320 + 10 * i, 4),
      gluCase(activation, { rows: 2, width: 64 }, 323 + 10 * i, 1e4),
    ]),
    gluCase("silu", { rows: 1, width: 1 }, 301),
    gluCase("silu", { rows: 3, width: 344 }, 303, 200),
    gluCase("silu", { rows: 7, width: 131 }, 305, 30),
    gluCase("identity", { rows: 5, width: 13, stride: 61, gateOffset: 40, upOffset: 3 }, 307),
  ];
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
  const { dtype } = variant;
  return [
    ...embeddingCases(variant),
    ...normCases(variant),
    // One storage type and no subgroups: once is enough.
    ...(variant.subgroups && dtype === "f32" ? gluCases() : []),
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
      normCase(
        { kind: "rms", subgroups, vectorized: true, affine: true, threads: workgroupThreads(width / 4) },
        { rows, width },
        9,
      )
    ),
    gluCase("silu", { rows: 512, width: 8192 }, 11),
    gluCase("silu", { rows: 512, width: 14336 }, 13),
    addCase(512 * 4096, 15),
    gatherRowsCase(256, 4096, 512, 17),
  ];
}
